"""Plain network, one image at a time: the parity and speed reference of the tests.

Shapes: B batch, C channels of a stage, H x W its size, E experts, K experts chosen per image.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)
LOGIT_LIMIT = 15.0
SOBEL_X = [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]
SOBEL_Y = [[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]]
LAPLACIAN = [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]


class ReferenceOutput(NamedTuple):
    """Mask logits (B,1,H,W), three deep logits, and a (B,K) choice and (B,E) gate logits for each layer."""

    logits: Tensor
    deep_logits: list[Tensor]
    top_k_indices: list[Tensor]
    gate_logits: list[Tensor]


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B,C,H,W) to (B,C,*size)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=False)


def height_width(x: Tensor) -> tuple[int, int]:
    """(H, W) of a (B,C,H,W) map."""
    return x.shape[2], x.shape[3]


def filter_each_channel(x: Tensor, kernel: Tensor) -> Tensor:
    """Apply one (1,1,3,3) kernel to every channel of (B,C,H,W), zero padding."""
    channels = x.shape[1]
    return F.conv2d(x, kernel.to(x.dtype).repeat(channels, 1, 1, 1), padding=1, groups=channels)


def branch_widths(channels: int) -> list[int]:
    """Widths of the four branches of an expert; the last takes what a division by four leaves over."""
    quarter = channels // 4
    return [quarter, quarter, quarter, channels - 3 * quarter]


def head_count(channels: int) -> int:
    """The largest number of heads, at most 8, that divides the channels."""
    heads = 8
    while channels % heads != 0:
        heads -= 1
    return heads


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels at each pixel of (B,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias, eps=1e-6)
        return y.permute(0, 3, 1, 2)


def conv_norm_gelu(channels: int, width: int) -> nn.Sequential:
    """1x1 convolution, LN, GELU: (B,channels,H,W) -> (B,width,H,W)."""
    return nn.Sequential(nn.Conv2d(channels, width, 1), ChannelLayerNorm(width), nn.GELU())


class TextureExpert(nn.Module):
    """Four dilations side by side: (1,C,H,W) -> (1,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = branch_widths(channels)
        self.branch1 = self._branch(channels, widths[0], 1)
        self.branch2 = self._branch(channels, widths[1], 2)
        self.branch3 = self._branch(channels, widths[2], 3)
        self.branch4 = self._branch(channels, widths[3], 4)
        self.fusion = conv_norm_gelu(channels, channels)

    @staticmethod
    def _branch(channels: int, width: int, dilation: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
            ChannelLayerNorm(width),
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        merged = torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)
        return cast(Tensor, self.fusion(merged) + x)


class AttentionExpert(nn.Module):
    """Attention that is linear in the number of pixels: (1,C,H,W) -> (1,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = head_count(channels)
        self.attention = nn.ModuleDict(
            {
                "qkv": nn.Conv2d(channels, 3 * channels, 1, bias=False),
                "proj": nn.Conv2d(channels, channels, 1),
            }
        )
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = self.attention["qkv"](x).chunk(3, dim=1)
        q, k, v = (t.reshape(batch, self.heads, channels // self.heads, height * width) for t in (q, k, v))
        q, k, v = (t.transpose(2, 3) for t in (q, k, v))  # (1, heads, H*W, C/heads)
        q = F.elu(q) + 1.0
        k = F.elu(k) + 1.0
        q = q / q.sum(dim=3, keepdim=True)
        k = k / k.sum(dim=3, keepdim=True)
        out = q @ (k.transpose(2, 3) @ v)
        out = out.transpose(2, 3).reshape(batch, channels, height, width)
        return cast(Tensor, self.dropout(self.attention["proj"](out)) + x)


class HybridExpert(nn.Module):
    """A local map gated by the global mean: (1,C,H,W) -> (1,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.local_branch = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
            ChannelLayerNorm(channels),
            nn.Conv2d(channels, channels, 1),
            nn.GELU(),
        )
        self.global_branch = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, quarter, 1),
            nn.GELU(),
            nn.Conv2d(quarter, channels, 1),
            nn.Sigmoid(),
        )
        self.fusion = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fusion(self.local_branch(x) * self.global_branch(x)) + x)


class FrequencyExpert(nn.Module):
    """Three bands taken with box means, and the map itself: (1,C,H,W) -> (1,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = branch_widths(channels)
        self.low_freq_conv = conv_norm_gelu(channels, widths[0])
        self.mid_freq_conv = conv_norm_gelu(channels, widths[1])
        self.high_freq_conv = conv_norm_gelu(channels, widths[2])
        self.spatial_conv = conv_norm_gelu(channels, widths[3])
        self.fusion = conv_norm_gelu(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        mean3 = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=True)
        mean5 = F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=True)
        low = self.low_freq_conv(mean3)
        mid = self.mid_freq_conv(mean3 - mean5)
        high = self.high_freq_conv(x - mean3)
        spatial = self.spatial_conv(x)
        return cast(Tensor, self.fusion(torch.cat([low, mid, high, spatial], dim=1)) + x)


class EdgeExpert(nn.Module):
    """First and second derivatives of each channel, and the map itself: (1,C,H,W) -> (1,C,H,W)."""

    sobel_x_base: Tensor
    sobel_y_base: Tensor
    laplacian_base: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = branch_widths(channels)
        self.register_buffer("sobel_x_base", torch.tensor(SOBEL_X).reshape(1, 1, 3, 3))
        self.register_buffer("sobel_y_base", torch.tensor(SOBEL_Y).reshape(1, 1, 3, 3))
        self.register_buffer("laplacian_base", torch.tensor(LAPLACIAN).reshape(1, 1, 3, 3))
        self.sobel_branch = conv_norm_gelu(channels, widths[0])
        self.laplacian_branch = conv_norm_gelu(channels, widths[1])
        self.gradient_branch = conv_norm_gelu(channels, widths[2])
        self.spatial_branch = conv_norm_gelu(channels, widths[3])
        self.fusion = conv_norm_gelu(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        sobel_x = filter_each_channel(x, self.sobel_x_base)
        sobel_y = filter_each_channel(x, self.sobel_y_base)
        s = torch.sqrt(sobel_x**2 + sobel_y**2 + 1e-8)
        laplacian = filter_each_channel(x, self.laplacian_base).abs()
        g = torch.sqrt(s**2 + laplacian**2 + 1e-8)
        branches = [
            self.sobel_branch(s),
            self.laplacian_branch(laplacian),
            self.gradient_branch(g),
            self.spatial_branch(x),
        ]
        return cast(Tensor, self.fusion(torch.cat(branches, dim=1)) + x)


class SemanticContextExpert(nn.Module):
    """Means over four grids, resized back: (1,C,H,W) -> (1,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = branch_widths(channels)
        self.conv_1 = conv_norm_gelu(channels, widths[0])
        self.conv_2 = conv_norm_gelu(channels, widths[1])
        self.conv_3 = conv_norm_gelu(channels, widths[2])
        self.conv_4 = conv_norm_gelu(channels, widths[3])
        self.context_fusion = conv_norm_gelu(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        size = height_width(x)
        grid8 = resize(self.conv_1(F.adaptive_avg_pool2d(x, 8)), size)
        grid4 = resize(self.conv_2(F.adaptive_avg_pool2d(x, 4)), size)
        grid2 = resize(self.conv_3(F.adaptive_avg_pool2d(x, 2)), size)
        grid1 = resize(self.conv_4(F.adaptive_avg_pool2d(x, 1)), size)
        return cast(Tensor, self.context_fusion(torch.cat([grid8, grid4, grid2, grid1], dim=1)) + x)


class ContrastExpert(nn.Module):
    """A depthwise local filter: (1,C,H,W) -> (1,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local_contrast = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            ChannelLayerNorm(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
            ChannelLayerNorm(channels),
        )
        self.fusion = conv_norm_gelu(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fusion(self.local_contrast(x)) + x)


EXPERT_TYPES = (
    TextureExpert,
    AttentionExpert,
    HybridExpert,
    FrequencyExpert,
    EdgeExpert,
    SemanticContextExpert,
    ContrastExpert,
)


class MixtureOfExperts(nn.Module):
    """Experts chosen per image: (B,C,H,W) -> (B,C,H,W), choice (B,K), gate logits (B,E)."""

    def __init__(self, channels: int, num_experts: int) -> None:
        super().__init__()
        self.k = min(num_experts, max(2, num_experts // 2))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, num_experts, 1))
        self.experts = nn.ModuleList(EXPERT_TYPES[e % 7](channels) for e in range(num_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gate_logits = self.gate(x).flatten(1)
        top_logits, top_indices = torch.topk(gate_logits, self.k, dim=1)
        weights = torch.softmax(top_logits, dim=1)
        images = []
        for b in range(x.shape[0]):
            image = x[b : b + 1]
            mixed = torch.zeros_like(image)
            for slot in range(self.k):
                number = int(top_indices[b, slot].item())
                mixed = mixed + weights[b, slot] * self.experts[number](image)
            images.append(mixed)
        return torch.cat(images, dim=0), top_indices, gate_logits


class GateBlock(nn.Module):
    """Channel gate, then a spatial gate of the gated map: (B,C,H,W) -> (B,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 8, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 8, channels, 1),
            nn.Sigmoid(),
        )
        self.spatial_attention = nn.Sequential(nn.Conv2d(channels, 1, 7, padding=3), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_attention(x)
        return cast(Tensor, x * self.spatial_attention(x))


class DecoderBlock(nn.Module):
    """Upsample (B,C,H,W) to (B,C,2H,2W), join the skip (B,S,H',W') if there is one, convolve twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels, eps=1e-5, momentum=0.1),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels, eps=1e-5, momentum=0.1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        height, width = height_width(x)
        x = resize(x, (2 * height, 2 * width))
        if skip is not None:
            if height_width(x) != height_width(skip):
                x = resize(x, height_width(skip))
            x = torch.cat([x, skip], dim=1)
        return cast(Tensor, self.conv(x))


def make_backbone(name: str) -> tuple[Any, list[int]]:
    """A timm feature network with maps at the strides 4, 8, 16 and 32, and the channels of these maps."""
    info: Any = timm.create_model(name, features_only=True, pretrained=False).feature_info
    reductions: list[int] = info.reduction(list(range(len(info))))
    if any(stride not in reductions for stride in STRIDES):
        raise ValueError(f"{name}: no maps at the strides {STRIDES}, only at {sorted(set(reductions))}")
    # where several maps share a stride, the deepest of them counts
    picked = tuple(max(i for i, r in enumerate(reductions) if r == stride) for stride in STRIDES)
    backbone: Any = timm.create_model(name, features_only=True, pretrained=False, out_indices=picked)
    return backbone, [int(c) for c in backbone.feature_info.channels()]


class ReferenceCamoXpert(nn.Module):
    """Images (B,3,H,W), already normalized, to the logits of their masks (B,1,H,W)."""

    def __init__(self, backbone: str = "edgenext_base", num_experts: int = 7) -> None:
        super().__init__()
        self.backbone, channels = make_backbone(backbone)
        # some backbones, Swin among them, give their maps as (B,H,W,C)
        self.channels_last = str(getattr(self.backbone, "output_fmt", "NCHW")).endswith("NHWC")
        c1, c2, c3, c4 = channels
        self.sdta_blocks = nn.ModuleList(GateBlock(c) for c in channels)
        self.moe_layers = nn.ModuleList(MixtureOfExperts(c, num_experts) for c in channels)
        self.decoder_blocks = nn.ModuleList(
            DecoderBlock(*widths) for widths in ((c4, c3, c3), (c3, c2, c2), (c2, c1, c1), (c1, 0, 64))
        )
        self.deep_heads = nn.ModuleList([nn.Conv2d(c3, 1, 1), nn.Conv2d(c2, 1, 1), nn.Conv2d(c1, 1, 1)])
        self.final_conv = nn.Sequential(
            nn.Conv2d(64, 32, 3, padding=1),
            nn.BatchNorm2d(32, eps=1e-5, momentum=0.1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
        )

    def forward(self, images: Tensor) -> ReferenceOutput:
        stages = []
        top_k_indices = []
        gate_logits = []
        for i, features in enumerate(self.backbone(images)):
            if self.channels_last:
                features = features.permute(0, 3, 1, 2)
            mixed, chosen, gates = self.moe_layers[i](self.sdta_blocks[i](features))
            stages.append(mixed)
            top_k_indices.append(chosen)
            gate_logits.append(gates)

        d0 = self.decoder_blocks[0](stages[3], stages[2])
        d1 = self.decoder_blocks[1](d0, stages[1])
        d2 = self.decoder_blocks[2](d1, stages[0])
        d3 = self.decoder_blocks[3](d2)
        deep_logits = [self.deep_heads[0](d0), self.deep_heads[1](d1), self.deep_heads[2](d2)]
        logits = self.final_conv(resize(d3, height_width(images)))

        # a clamp in training would take the gradient from the pixels that are badly wrong
        if not self.training:
            logits = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            deep_logits = [deep.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) for deep in deep_logits]
        return ReferenceOutput(logits, deep_logits, top_k_indices, gate_logits)


def edge_strength(x: Tensor) -> Tensor:
    """Size of the Sobel gradient: (B,1,H,W) -> (B,1,H,W)."""
    gx = filter_each_channel(x, torch.tensor(SOBEL_X, device=x.device).reshape(1, 1, 3, 3))
    gy = filter_each_channel(x, torch.tensor(SOBEL_Y, device=x.device).reshape(1, 1, 3, 3))
    return torch.sqrt(gx**2 + gy**2 + 1e-5)


def balance_loss(gate_logits: Tensor, top_k_indices: Tensor) -> Tensor:
    """Load balance of one layer from (B,E) gate logits and its (B,K) choice; 1 where the load is even."""
    batch, num_experts = gate_logits.shape
    k = top_k_indices.shape[1]
    probabilities = torch.softmax(gate_logits.float(), dim=1)
    total = torch.zeros((), device=gate_logits.device)
    for expert in range(num_experts):
        images = int((top_k_indices == expert).any(dim=1).sum().item())
        total = total + images / (batch * k) * probabilities[:, expert].mean()
    return num_experts * total


def reference_loss(output: ReferenceOutput, masks: Tensor, deep_supervision: bool = True) -> dict[str, Tensor]:
    """The float32 scalars bce, iou, edge, balance, deep and total for masks (B,1,H,W) of 0 and 1."""
    with torch.autocast(device_type=masks.device.type, enabled=False):
        logits = output.logits.float()
        masks = masks.float()
        p = torch.sigmoid(logits)

        bce = F.binary_cross_entropy_with_logits(logits, masks)

        intersection = (p * masks).sum(dim=(1, 2, 3))
        union = p.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3)) - intersection
        iou = 1.0 - ((intersection + 1e-5) / (union + 1e-5)).mean()

        edge = ((edge_strength(p) - edge_strength(masks)) ** 2).mean()

        balance = torch.zeros((), device=logits.device)
        for gates, chosen in zip(output.gate_logits, output.top_k_indices, strict=True):
            balance = balance + balance_loss(gates, chosen)

        deep = torch.zeros((), device=logits.device)
        if deep_supervision:
            for head in output.deep_logits:
                small_masks = resize(masks, height_width(head))
                deep = deep + F.binary_cross_entropy_with_logits(head.float(), small_masks)
            deep = deep / len(output.deep_logits)

        total = 5.0 * bce + 3.0 * iou + 2.0 * edge + 0.1 * balance + 0.4 * deep
    return {"bce": bce, "iou": iou, "edge": edge, "balance": balance, "deep": deep, "total": total}
