"""Intersection over union and Dice of two binary maps of one picture."""

from __future__ import annotations

import torch
from torch import Tensor


def iou(prediction: Tensor, mask: Tensor) -> Tensor:
    """|P and M| / |P or M| of boolean maps (H, W); 1 where both are empty. 0-dimensional, float64."""
    intersection, union = (prediction & mask).sum().double(), (prediction | mask).sum().double()
    return torch.where(union > 0, intersection / union.clamp_min(1), 1.0)


def dice(prediction: Tensor, mask: Tensor) -> Tensor:
    """2 |P and M| / (|P| + |M|) of boolean maps (H, W); 1 where both are empty. 0-dimensional, float64."""
    intersection, total = (prediction & mask).sum().double(), (prediction.sum() + mask.sum()).double()
    return torch.where(total > 0, 2 * intersection / total.clamp_min(1), 1.0)
