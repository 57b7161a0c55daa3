"""Small layers shared by the parts of the network. Notation: B images, C channels, H x W pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camoxpert_cli.model.double_size import double_size


class GlobalAvgPool(nn.Module):
    """Global average pooling, (B, C, H, W) -> (B, C, 1, 1), with a deterministic gradient on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1), keepdim=True)


class LayerNorm(nn.LayerNorm):
    """LayerNorm whose input and output stay in half precision under autocast; its statistics are float32 there too."""

    def forward(self, x: Tensor) -> Tensor:
        device_type = x.device.type
        if torch.compiler.is_compiling() or not torch.is_autocast_enabled(device_type):
            return super().forward(x)  # a compiler merges the conversions with what is around them
        dtype = torch.get_autocast_dtype(device_type)
        weight, bias = (each if each is None else each.to(dtype) for each in (self.weight, self.bias))
        torch.set_autocast_enabled(device_type, False)  # what torch.autocast does, in a tenth of its time
        try:
            return F.layer_norm(x.to(dtype), self.normalized_shape, weight, bias, self.eps)
        finally:
            torch.set_autocast_enabled(device_type, True)


class LayerNorm2d(LayerNorm):
    """The same over the channels of each pixel of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Conv1x1(nn.Conv2d):
    """1x1 convolution as a matrix product over the pixels of a channels-last tensor, which is faster on CPUs."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class Pointwise(nn.Sequential):
    """1x1 convolution, LayerNorm and GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(Conv1x1(inputs, outputs), LayerNorm2d(outputs), nn.GELU())

    def before_gelu(self, x: Tensor) -> Tensor:
        """Compute all but the GELU, for branches that are concatenated before it."""
        convolution, norm, _ = self
        normalized: Tensor = norm(convolution(x))
        return normalized


def split_in_four(channels: int) -> tuple[int, int, int, int]:
    """Return the widths of four concatenated branches: a quarter each, the last including the remainder."""
    quarter = channels // 4
    return quarter, quarter, quarter, channels - 3 * quarter


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; float64 stays, so that a float64 network computes in float64 throughout."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly, without aligned corners or antialiasing; returns `x` itself if the size already matches."""
    height, width = x.shape[-2:]
    if (height, width) == size:
        return x
    if (2 * height, 2 * width) == size:
        return double_size(x)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
