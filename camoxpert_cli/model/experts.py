"""The seven types of experts. Each maps (B, C, H, W) to what is to be added to it, of the same shape.

The residual connection is the mixture's: the weights of an image's experts add up to one. Attribute names are those in
checkpoints of the original CamoXpert.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camoxpert_cli.model.edge_strength import edge_strength
from camoxpert_cli.model.initial_weights import zero_init_residual_
from camoxpert_cli.model.layers import (
    Conv1x1,
    GlobalAvgPool,
    LayerNorm2d,
    Pointwise,
    at_least_float32,
    split_in_four,
)
from camoxpert_cli.model.per_size import of_size
from camoxpert_cli.model.pyramid import CELLS, Pyramid, pyramid


class TextureExpert(nn.Module):
    """Texture at four scales: 3x3 convolutions with dilation 1 to 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widths = split_in_four(channels)
        for dilation, width in enumerate(self.widths, start=1):
            branch = nn.Sequential(
                nn.Conv2d(channels, width, 1),
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
                LayerNorm2d(width),
                nn.GELU(),
            )
            self.add_module(f"branch{dilation}", branch)
        self.fusion = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        branches: list[Any] = [self.get_submodule(f"branch{dilation}") for dilation in (1, 2, 3, 4)]
        # The 1x1 convolutions of all branches at once: `x` and its gradient are a quarter as much to move.
        weight = torch.cat([first.weight for first, *_ in branches]).flatten(1)
        bias = torch.cat([first.bias for first, *_ in branches])
        joined = F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
        parts = torch.split(joined, list(self.widths), dim=1)
        scales = [norm(dilated(part)) for (_, dilated, norm, _), part in zip(branches, parts, strict=True)]
        return self.fusion(F.gelu(torch.cat(scales, dim=1)))


class LinearAttention(nn.Module):
    """Attention over all pixels at linear cost: out = q (k^T v), q and k made positive by elu + 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = attention_heads(channels)
        self.qkv = Conv1x1(channels, 3 * channels, bias=False)
        self.proj = Conv1x1(channels, channels)
        # k^T v is a sum over all pixels: at stride 4 its random projection is fifty times larger than the residual.
        zero_init_residual_(self.proj)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).flatten(2).view(batch, 3, self.heads, channels // self.heads, height * width)
        # In half precision the sum over all pixels can exceed 65504.
        with torch.autocast(x.device.type, enabled=False):
            q_and_k, v = torch.split(at_least_float32(qkv), [2, 1], dim=1)
            q, k = _positive_unit_sum(q_and_k).unbind(1)  # each (B, heads, C / heads, H * W)
            context = k @ v.squeeze(1).transpose(-2, -1)  # (B, heads, C / heads of k, C / heads of v)
            out = context.transpose(-2, -1) @ q
        out = out.reshape(batch, channels, height, width).to(x.dtype, memory_format=torch.channels_last)
        return self.dropout(self.proj(out))


class AttentionExpert(nn.Module):
    """Long-range context by linear attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = LinearAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


class HybridExpert(nn.Module):
    """A local branch, scaled by a gate computed from the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.local_branch = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
            LayerNorm2d(channels),
            Conv1x1(channels, channels),
            nn.GELU(),
        )
        self.global_branch = nn.Sequential(
            GlobalAvgPool(),
            nn.Conv2d(channels, quarter, 1),
            nn.GELU(),
            nn.Conv2d(quarter, channels, 1),
            nn.Sigmoid(),
        )
        self.fusion = Conv1x1(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(self.local_branch(x) * self.global_branch(x))


class FrequencyExpert(nn.Module):
    """Low, middle and high spatial frequencies, separated by 3x3 and 5x5 means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        low, mid, high, spatial = split_in_four(channels)
        self.low_freq_conv = Pointwise(channels, low)
        self.mid_freq_conv = Pointwise(channels, mid)
        self.high_freq_conv = Pointwise(channels, high)
        self.spatial_conv = Pointwise(channels, spatial)
        self.fusion = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        mean3 = F.avg_pool2d(x, 3, stride=1, padding=1)
        mean5 = F.avg_pool2d(x, 5, stride=1, padding=2)
        bands = [
            self.low_freq_conv.before_gelu(mean3),
            self.mid_freq_conv.before_gelu(mean3 - mean5),
            self.high_freq_conv.before_gelu(x - mean3),
            self.spatial_conv.before_gelu(x),
        ]
        return self.fusion(F.gelu(torch.cat(bands, dim=1)))


class EdgeExpert(nn.Module):
    """Sobel and Laplacian edge strength per channel, and both combined."""

    sobel_x_base: Tensor
    sobel_y_base: Tensor
    laplacian_base: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        sobel_x = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        laplacian = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
        self.register_buffer("sobel_x_base", sobel_x.view(1, 1, 3, 3))
        self.register_buffer("sobel_y_base", sobel_x.t().contiguous().view(1, 1, 3, 3))
        self.register_buffer("laplacian_base", laplacian.view(1, 1, 3, 3))
        sobel, laplace, gradient, spatial = split_in_four(channels)
        self.sobel_branch = Pointwise(channels, sobel)
        self.laplacian_branch = Pointwise(channels, laplace)
        self.gradient_branch = Pointwise(channels, gradient)
        self.spatial_branch = Pointwise(channels, spatial)
        self.fusion = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        kernels = torch.cat([self.sobel_x_base, self.sobel_y_base, self.laplacian_base]).to(x.dtype)
        sobel, laplacian, gradient = edge_strength(x, kernels)
        branches = [
            self.sobel_branch.before_gelu(sobel),
            self.laplacian_branch.before_gelu(laplacian),
            self.gradient_branch.before_gelu(gradient),
            self.spatial_branch.before_gelu(x),
        ]
        return self.fusion(F.gelu(torch.cat(branches, dim=1)))


class SemanticContextExpert(nn.Module):
    """Pyramid pooling: means over grids of 8x8, 4x4 and 2x2 cells and over the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for number, width in enumerate(split_in_four(channels), start=1):
            self.add_module(f"conv_{number}", Pointwise(channels, width))
        self.context_fusion = Pointwise(channels, channels)
        self._pyramids: dict[tuple[object, ...], Pyramid] = {}

    def forward(self, x: Tensor) -> Tensor:
        matrices = of_size(self._pyramids, (*x.shape[2:], x.dtype, x.device), pyramid)
        cells = matrices.means(x)
        convolution: Any
        convolution, norm, gelu = self.context_fusion
        # Resizing and a 1x1 convolution commute: the fusion works on cells, and what it makes of them is resized.
        fused = []
        weights = torch.split(convolution.weight.flatten(1), list(split_in_four(x.shape[1])), dim=1)
        for number, weight in enumerate(weights):
            of_grid = cells[:, CELLS[number] : CELLS[number + 1]].unsqueeze(1).permute(0, 3, 1, 2)
            context = self.get_submodule(f"conv_{number + 1}")(of_grid).permute(0, 2, 3, 1).squeeze(1)
            # The bias goes to the grid of one cell, which reaches each pixel once.
            fused.append(F.linear(context, weight, convolution.bias if number == 3 else None))
        return gelu(norm(matrices.spread(torch.cat(fused, dim=1))))


class ContrastExpert(nn.Module):
    """Local contrast learned by a depthwise 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local_contrast = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            LayerNorm2d(channels),
            nn.GELU(),
            Conv1x1(channels, channels),
            LayerNorm2d(channels),
        )
        self.fusion = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(self.local_contrast(x))


# Expert e of a mixture is of type e mod 7.
EXPERT_TYPES: tuple[type[nn.Module], ...] = (
    TextureExpert,
    AttentionExpert,
    HybridExpert,
    FrequencyExpert,
    EdgeExpert,
    SemanticContextExpert,
    ContrastExpert,
)


def attention_heads(channels: int) -> int:
    """Return the number of attention heads: 8 if it divides the channels, else the largest smaller divisor."""
    return next(heads for heads in range(8, 0, -1) if channels % heads == 0)


def _positive_unit_sum(x: Tensor) -> Tensor:
    positive = F.elu(x) + 1
    # elu + 1 is exactly zero below about -17: without the bound, a dead head would compute 0 / 0.
    return positive / positive.sum(dim=-2, keepdim=True).clamp_min(1e-6)
