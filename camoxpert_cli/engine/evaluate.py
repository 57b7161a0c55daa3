"""Scores of a network: each picture for itself, at its mask's own size, then the mean over pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camoxpert_cli.console import Advance
from camoxpert_cli.data.dataset import ScoringBatch
from camoxpert_cli.engine.normalise import Normalise
from camoxpert_cli.metrics.mae import mae
from camoxpert_cli.metrics.overlap import dice, iou
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.layers import resize

THRESHOLD = 0.5


@dataclass(frozen=True)
class Scores:
    """Means over `pictures`: IoU and Dice of the map at 0.5, mean absolute error. All 0 to 1."""

    pictures: int
    iou: float
    dice: float
    mae: float


@torch.no_grad()
def probability_maps(
    network: CamoXpert, images: Tensor, sizes: Sequence[tuple[int, int]], dtype: torch.dtype | None
) -> list[Tensor]:
    """uint8 pictures (B, 3, S, S) to one float32 map (H, W) in 0..1 for each of `sizes`; logits are what is resized."""
    normalise = Normalise(network.normalisation).to(images.device)
    with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
        logits = network(normalise(images)).logits.float()
    return [resize(logits[index : index + 1], size)[0, 0].sigmoid() for index, size in enumerate(sizes)]


@torch.no_grad()
def evaluate(
    network: CamoXpert,
    batches: Iterable[ScoringBatch],
    device: torch.device,
    dtype: torch.dtype | None,
    advance: Advance,
) -> Scores:
    """Score `network`, in eval mode, on batches of pictures (B, 3, S, S) uint8, masks (1, H, W) uint8, indices."""
    rows = []
    for images, masks, _ in batches:
        sizes = [(mask.shape[-2], mask.shape[-1]) for mask in masks]
        maps = probability_maps(network, images.to(device, non_blocking=True), sizes, dtype)
        for probability, mask in zip(maps, masks, strict=True):
            truth = mask[0].to(device) > 0
            prediction = probability >= THRESHOLD
            rows.append(torch.stack([iou(prediction, truth), dice(prediction, truth), mae(probability, truth)]))
        advance(len(masks), "")
    means = torch.stack(rows).mean(dim=0).tolist()
    return Scores(len(rows), *means)
