"""The seven types of experts. Each maps (B, C, H, W) to (B, C, H, W) with a residual connection.

Attribute names are those in checkpoints of the original CamoXpert.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camoxpert_cli.model.initial_weights import zero_init_residual_
from camoxpert_cli.model.layers import (
    GlobalAvgPool,
    LayerNorm2d,
    adaptive_avg_pool2d,
    at_least_float32,
    pointwise,
    resize,
    split_in_four,
)


class TextureExpert(nn.Module):
    """Texture at four scales: 3x3 convolutions with dilation 1 to 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for dilation, width in enumerate(split_in_four(channels), start=1):
            branch = nn.Sequential(
                nn.Conv2d(channels, width, 1),
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
                LayerNorm2d(width),
                nn.GELU(),
            )
            self.add_module(f"branch{dilation}", branch)
        self.fusion = pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.get_submodule(f"branch{dilation}")(x) for dilation in (1, 2, 3, 4)]
        return self.fusion(torch.cat(branches, dim=1)) + x


class LinearAttention(nn.Module):
    """Attention over all pixels at linear cost: out = q (k^T v), q and k made positive by elu + 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = attention_heads(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.proj = nn.Conv2d(channels, channels, 1)
        # k^T v is a sum over all pixels: at stride 4 its random projection is fifty times larger than the residual.
        zero_init_residual_(self.proj)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).view(batch, 3, self.heads, channels // self.heads, height * width)
        # In half precision the sum over all pixels can exceed 65504.
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = at_least_float32(qkv).unbind(1)  # each (B, heads, C / heads, H * W)
            q, k = _positive_unit_sum(q), _positive_unit_sum(k)
            context = k @ v.transpose(-2, -1)  # (B, heads, C / heads of k, C / heads of v)
            out = context.transpose(-2, -1) @ q
        return self.dropout(self.proj(out.reshape(batch, channels, height, width)))


class AttentionExpert(nn.Module):
    """Long-range context by linear attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = LinearAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x) + x


class HybridExpert(nn.Module):
    """A local branch, scaled by a gate computed from the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.local_branch = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
            LayerNorm2d(channels),
            nn.Conv2d(channels, channels, 1),
            nn.GELU(),
        )
        self.global_branch = nn.Sequential(
            GlobalAvgPool(),
            nn.Conv2d(channels, quarter, 1),
            nn.GELU(),
            nn.Conv2d(quarter, channels, 1),
            nn.Sigmoid(),
        )
        self.fusion = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(self.local_branch(x) * self.global_branch(x)) + x


class FrequencyExpert(nn.Module):
    """Low, middle and high spatial frequencies, separated by 3x3 and 5x5 means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        low, mid, high, spatial = split_in_four(channels)
        self.low_freq_conv = pointwise(channels, low)
        self.mid_freq_conv = pointwise(channels, mid)
        self.high_freq_conv = pointwise(channels, high)
        self.spatial_conv = pointwise(channels, spatial)
        self.fusion = pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        mean3 = F.avg_pool2d(x, 3, stride=1, padding=1)
        mean5 = F.avg_pool2d(x, 5, stride=1, padding=2)
        bands = [
            self.low_freq_conv(mean3),
            self.mid_freq_conv(mean3 - mean5),
            self.high_freq_conv(x - mean3),
            self.spatial_conv(x),
        ]
        return self.fusion(torch.cat(bands, dim=1)) + x


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
        self.sobel_branch = pointwise(channels, sobel)
        self.laplacian_branch = pointwise(channels, laplace)
        self.gradient_branch = pointwise(channels, gradient)
        self.spatial_branch = pointwise(channels, spatial)
        self.fusion = pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        # 1e-8 is zero in half precision, and the square root has an infinite gradient at zero.
        with torch.autocast(x.device.type, enabled=False):
            wide = at_least_float32(x)
            sobel_x, sobel_y, laplacian = (
                F.conv2d(wide, kernel.to(wide.dtype).expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
                for kernel in (self.sobel_x_base, self.sobel_y_base, self.laplacian_base)
            )
            sobel = torch.sqrt(sobel_x**2 + sobel_y**2 + 1e-8)
            laplacian = laplacian.abs()
            gradient = torch.sqrt(sobel**2 + laplacian**2 + 1e-8)
        branches = [
            self.sobel_branch(sobel),
            self.laplacian_branch(laplacian),
            self.gradient_branch(gradient),
            self.spatial_branch(x),
        ]
        return self.fusion(torch.cat(branches, dim=1)) + x


class SemanticContextExpert(nn.Module):
    """Pyramid pooling: means over grids of 8x8, 4x4 and 2x2 cells and over the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for number, width in enumerate(split_in_four(channels), start=1):
            self.add_module(f"conv_{number}", pointwise(channels, width))
        self.context_fusion = pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        contexts = [
            resize(self.get_submodule(f"conv_{number}")(adaptive_avg_pool2d(x, cells)), size)
            for number, cells in enumerate((8, 4, 2, 1), start=1)
        ]
        return self.context_fusion(torch.cat(contexts, dim=1)) + x


class ContrastExpert(nn.Module):
    """Local contrast learned by a depthwise 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local_contrast = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            LayerNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
            LayerNorm2d(channels),
        )
        self.fusion = pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(self.local_contrast(x)) + x


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
