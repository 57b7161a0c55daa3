"""Gates on a backbone feature map before the experts."""

from __future__ import annotations

from torch import Tensor, nn

from camoxpert_cli.model.initial_weights import init_gate_
from camoxpert_cli.model.layers import GlobalAvgPool


class ChannelSpatialGate(nn.Module):
    """Channel attention followed by spatial attention: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 8)
        channel_logits, spatial_logits = nn.Conv2d(hidden, channels, 1), nn.Conv2d(channels, 1, 7, padding=3)
        self.channel_attention = nn.Sequential(
            GlobalAvgPool(), nn.Conv2d(channels, hidden, 1), nn.ReLU(), channel_logits, nn.Sigmoid()
        )
        self.spatial_attention = nn.Sequential(spatial_logits, nn.Sigmoid())
        init_gate_(channel_logits)
        init_gate_(spatial_logits)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_attention(x)
        return x * self.spatial_attention(x)
