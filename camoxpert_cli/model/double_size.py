"""Bilinear upsampling by two, in half precision under autocast and with a deterministic gradient on CUDA."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def double_size(x: Tensor) -> Tensor:
    """Upsample (B, C, H, W) to (B, C, 2H, 2W), like `F.interpolate`, bilinear without aligned corners."""
    if x.device.type == "cpu" or not (torch.is_grad_enabled() and x.requires_grad):
        with torch.autocast(x.device.type, enabled=False):
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    doubled: Tensor = _DoubleSize.apply(x)
    return doubled


class _DoubleSize(Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            size = [2 * x.shape[-2], 2 * x.shape[-1]]
            return torch.ops.aten.upsample_bilinear2d(x, size, False, 2.0, 2.0)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient_of_double_size(gradient)


def gradient_of_double_size(gradient: Tensor) -> Tensor:
    """Return the gradient of `double_size` for its input: (B, C, 2H, 2W) -> (B, C, H, W).

    Two matrix products, in which each pixel collects from those that it was a part of. torch's own gradient adds each
    to the pixels that it was made of, with atomics, and in half precision sums would be rounded each time.
    """
    batch, channels, height, width = gradient.shape
    lines = _transposed(height, gradient) @ gradient.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    pixels = _transposed(width, gradient) @ lines.view(-1, width, channels)
    return pixels.view(batch, height // 2, width // 2, channels).permute(0, 3, 1, 2)


def _transposed(doubled: int, like: Tensor) -> Tensor:
    """(doubled / 2, doubled), the transpose of doubling a line's length; its weights are exact in half precision."""
    lines = torch.eye(doubled // 2, dtype=like.dtype, device=like.device).view(1, 1, doubled // 2, -1)
    return F.interpolate(lines, scale_factor=(1, 2), mode="bilinear", align_corners=False)[0, 0]
