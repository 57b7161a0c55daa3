"""3x3 convolutions with a faster way back on CPUs. Letters: B images, I and O channels in and out, H x W pixels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input


class Conv3x3(nn.Conv2d):
    """Leaves the size as it is: padded by zeros as far as it reaches.

    On CPUs without AVX-512 oneDNN computes weight gradients of maps that lie channels last at half the speed of a
    matrix product. So in float32 on the CPU they are matrix products here; elsewhere this is torch's convolution.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
            return _Convolution.apply(x, self.weight, self.bias, self.dilation[0])
        return super().forward(x)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        for_input, for_weight, for_bias = ctx.needs_input_grad[:3]
        reach = ctx.dilation
        # The kernel's first: its copies are gone before the input's, as large as the input, is made.
        of_weight = _weight_gradient(x, gradient, reach) if for_weight else None
        of_bias = gradient.sum((0, 2, 3)) if for_bias else None
        by_torch: Any = conv2d_input  # without annotations
        of_input = by_torch(x.shape, weight, gradient, padding=reach, dilation=reach) if for_input else None
        return of_input, of_weight, of_bias, None


def _weight_gradient(x: Tensor, gradient: Tensor, reach: int) -> Tensor:
    """Of inputs (B, I, H, W) and the gradient of outputs (B, O, H, W): (O, I, 3, 3).

    A row of the kernel is one matrix product over all pixels: of the gradient, three times side by side, shifted as far
    as the row's three places, and the picture, moved up or down. A picture at a time: the copies are large.
    """
    height, width = x.shape[-2:]
    outputs, inputs = gradient.shape[1], x.shape[1]
    rows = x.new_zeros(3, 3 * outputs, inputs)
    for picture, error in zip(x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1), strict=True):
        pixels = F.pad(picture, (0, 0, 0, 0, reach, reach))
        padded = F.pad(error, (0, 0, reach, reach))
        shifted = torch.cat([padded[:, start : start + width] for start in (2 * reach, reach, 0)], dim=2)
        errors = shifted.view(height * width, 3 * outputs).t()
        for number, row in enumerate(rows):
            top = number * reach
            row.addmm_(errors, pixels[top : top + height].view(height * width, inputs))
    return rows.view(3, 3, outputs, inputs).permute(2, 3, 0, 1)
