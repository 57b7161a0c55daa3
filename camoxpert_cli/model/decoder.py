"""The way back from stride 32 to the picture's own size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camoxpert_cli.model.initial_weights import expect_background
from camoxpert_cli.model.layers import resize


class DecoderBlock(nn.Module):
    """Double the size, join the skip of that size, and convolve twice."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs + skip, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """`x` (B, inputs, H, W), `skip` about (B, skip, 2H, 2W) -> (B, outputs, the skip's size)."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        if skip is not None:
            x = torch.cat([resize(x, (skip.shape[-2], skip.shape[-1])), skip], dim=1)
        return self.conv(x)


def logit_head(inputs: int) -> nn.Conv2d:
    """One channel of logits: (B, inputs, H, W) -> (B, 1, H, W)."""
    head = nn.Conv2d(inputs, 1, 1)
    expect_background(head)
    return head


def final_head(inputs: int) -> nn.Sequential:
    """Two convolutions to one channel of logits."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs // 2, 3, padding=1),
        nn.BatchNorm2d(inputs // 2),
        nn.ReLU(),
        logit_head(inputs // 2),
    )
