"""Normalize images for the backbone, on the device of the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from camoxpert_cli.model.backbone import Normalization


class Normalize(nn.Module):
    """Normalize (B, 3, H, W) uint8 RGB to float32 with the backbone's mean and standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Normalization) -> None:
        super().__init__()
        # Not part of the state dict: the statistics follow from the backbone's name.
        self.register_buffer("mean", torch.tensor(statistics.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(statistics.std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std
