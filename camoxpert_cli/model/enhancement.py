"""Gates on a backbone map before the experts see it."""

from __future__ import annotations

from torch import Tensor, nn

from camoxpert_cli.model.init import nearly_close
from camoxpert_cli.model.layers import GlobalMean


class ChannelSpatialGate(nn.Module):
    """Scale channels, then pixels of the result. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 8)
        channel_logits, spatial_logits = nn.Conv2d(hidden, channels, 1), nn.Conv2d(channels, 1, 7, padding=3)
        self.channel_attention = nn.Sequential(
            GlobalMean(), nn.Conv2d(channels, hidden, 1), nn.ReLU(), channel_logits, nn.Sigmoid()
        )
        self.spatial_attention = nn.Sequential(spatial_logits, nn.Sigmoid())
        nearly_close(channel_logits)
        nearly_close(spatial_logits)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_attention(x)
        return x * self.spatial_attention(x)
