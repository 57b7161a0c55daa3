"""The decoder, from stride 32 back to the input size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from camoxpert_cli.model.double_size import double_size
from camoxpert_cli.model.initial_weights import init_foreground_prior_, shrink_init_
from camoxpert_cli.model.layers import Conv1x1, resize


class DecoderBlock(nn.Module):
    """Upsample by two, concatenate the skip connection of that size, and convolve twice."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*_convolution(inputs + skip, outputs), *_convolution(outputs, outputs))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """`x` (B, inputs, H, W), `skip` about (B, skip, 2H, 2W) -> (B, outputs, the skip's size)."""
        x = double_size(x)
        if skip is not None:
            x = torch.cat([resize(x, (skip.shape[-2], skip.shape[-1])), skip], dim=1)
        return self.conv(x)


def logit_head(inputs: int) -> Conv1x1:
    """Create a head for one channel of logits: (B, inputs, H, W) -> (B, 1, H, W)."""
    head = Conv1x1(inputs, 1)
    init_foreground_prior_(head)
    return head


def final_head(inputs: int) -> nn.Sequential:
    """Create a head of two convolutions for one channel of logits."""
    return nn.Sequential(*_convolution(inputs, inputs // 2), logit_head(inputs // 2))


def _convolution(inputs: int, outputs: int) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    """3x3 convolution that keeps the size, BatchNorm and ReLU."""
    kernel = nn.Conv2d(inputs, outputs, 3, padding=1)
    shrink_init_(kernel)
    return kernel, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
