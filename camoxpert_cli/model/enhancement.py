"""Gates on a backbone feature map before the experts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camoxpert_cli.model.initial_weights import init_gate_
from camoxpert_cli.model.layers import GlobalAvgPool


class OneChannelConv(nn.Conv2d):
    """7x7 convolution to one channel. On CPUs it trains as a product with the kernel, whose 49 results are then shifted
    and added: convolutions there compute several output channels at a time, whatever their number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        assert self.bias is not None
        # What a pixel contributes to the one three above and to the left is multiplied by the last of the kernel.
        kernel = self.weight[0].flatten(1).flip(1)
        contributions = (x.permute(0, 2, 3, 1).flatten(1, 2) @ kernel).transpose(1, 2)
        return F.fold(contributions, x.shape[2:], 7, padding=3) + self.bias.view(1, 1, 1, 1)


class ChannelSpatialGate(nn.Module):
    """Channel attention followed by spatial attention: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 8)
        channel_logits, spatial_logits = nn.Conv2d(hidden, channels, 1), OneChannelConv(channels)
        self.channel_attention = nn.Sequential(
            GlobalAvgPool(), nn.Conv2d(channels, hidden, 1), nn.ReLU(), channel_logits, nn.Sigmoid()
        )
        self.spatial_attention = nn.Sequential(spatial_logits, nn.Sigmoid())
        init_gate_(channel_logits)
        init_gate_(spatial_logits)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_attention(x)
        return x * self.spatial_attention(x)
