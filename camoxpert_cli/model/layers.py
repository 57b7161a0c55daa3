"""Small layers shared by the parts of the network. Notation: B images, C channels, H x W pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GlobalAvgPool(nn.Module):
    """Global average pooling, (B, C, H, W) -> (B, C, 1, 1), with a deterministic gradient on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1), keepdim=True)


def adaptive_avg_pool2d(x: Tensor, cells: int) -> Tensor:
    """Compute means over a grid of cells, like `F.adaptive_avg_pool2d`: (B, C, H, W) -> (B, C, cells, cells).

    Uses two matrix products: adaptive pooling has no deterministic gradient on CUDA, and is half as fast on CPUs.
    """
    batch, channels, height, width = x.shape
    of_rows, row_scale = _cells_of(height, cells, x)
    of_columns, column_scale = _cells_of(width, cells, x)
    rows = of_rows @ x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    means = of_columns @ rows.view(batch * cells, width, channels)
    scale = row_scale.view(cells, 1, 1) * column_scale.view(cells, 1)
    return (means.view(batch, cells, cells, channels) * scale).to(x.dtype).permute(0, 3, 1, 2)


def _cells_of(size: int, cells: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(cells, size), which sums the rows of each cell into a fraction of their mean; (cells,), the missing factors.

    The former contains only 0 and one power of two: rounding 1 / size to half precision would bias all means, and
    without a divisor the sums could overflow. Cells overlap if their number does not divide `size`.
    """
    cell = torch.arange(cells, device=like.device)
    start, end = cell * size // cells, ((cell + 1) * size + cells - 1) // cells
    row = torch.arange(size, device=like.device)
    inside = (start.unsqueeze(1) <= row) & (row < end.unsqueeze(1))
    most = 2 ** (-(-size // cells) + 1).bit_length()  # at least the rows of a cell
    return inside.to(like.dtype) / most, most / (end - start).to(torch.promote_types(like.dtype, torch.float32))


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def pointwise(inputs: int, outputs: int) -> nn.Sequential:
    """Create a 1x1 convolution followed by LayerNorm and GELU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), LayerNorm2d(outputs), nn.GELU())


def split_in_four(channels: int) -> tuple[int, int, int, int]:
    """Return the widths of four concatenated branches: a quarter each, the last including the remainder."""
    quarter = channels // 4
    return quarter, quarter, quarter, channels - 3 * quarter


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; float64 stays, so that a float64 network computes in float64 throughout."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly, without aligned corners or antialiasing; returns `x` itself if the size already matches."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
