"""Scores of a network: each picture for itself, at its mask's own size, then the mean over pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camoxpert_cli.console import Advance
from camoxpert_cli.data.dataset import ScoringBatch
from camoxpert_cli.data.loader import PictureLoader
from camoxpert_cli.engine.normalise import Normalise
from camoxpert_cli.engine.world import World
from camoxpert_cli.errors import DataError
from camoxpert_cli.metrics.picture_scores import quick_scores
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.layers import resize


@dataclass(frozen=True)
class Scores:
    """Means over `pictures`: IoU and Dice of the map at 0.5, mean absolute error, of 8-bit maps. All 0 to 1."""

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


def evaluate(
    network: CamoXpert,
    batches: PictureLoader[ScoringBatch],
    device: torch.device,
    dtype: torch.dtype | None,
    advance: Advance,
    world: World | None = None,
) -> Scores:
    """Score `network`, in eval mode, on batches of pictures (B, 3, S, S) uint8, masks (1, H, W) uint8, indices.

    Several ranks score whole batches in turn, and each gets the scores of all pictures, to the bits of one process.
    Raises DataError, on every rank, for a picture that any of them cannot read.
    """
    world = world or World()
    rows: list[tuple[int, Tensor]] = []
    problem: DataError | None = None
    mine = iter(batches)
    # Every rank goes as many rounds, for `advance` may have to agree with the others on whether to stop.
    for _ in range(max(world.gather(len(batches)))):
        try:
            batch = None if problem is not None else next(mine, None)
        except DataError as error:
            batch, problem = None, error
        if batch is not None:
            rows += _score(network, batch, device, dtype)
        advance(0 if batch is None else len(batch[1]), "")
    gathered = world.gather((rows, problem))
    for _, theirs in gathered:
        if theirs is not None:
            raise theirs
    ordered = sorted((row for rows, _ in gathered for row in rows), key=lambda row: row[0])
    means = torch.stack([values for _, values in ordered]).mean(dim=0).tolist()
    return Scores(len(ordered), *means)


@torch.no_grad()
def _score(
    network: CamoXpert, batch: ScoringBatch, device: torch.device, dtype: torch.dtype | None
) -> list[tuple[int, Tensor]]:
    """The index of each picture of a batch with its IoU, Dice and MAE (3,), on the CPU."""
    images, masks, indices = batch
    sizes = [(mask.shape[-2], mask.shape[-1]) for mask in masks]
    maps = probability_maps(network, images.to(device, non_blocking=True), sizes, dtype)
    scores = []
    for probability, mask in zip(maps, masks, strict=True):
        grey = (probability * 255).round().to("cpu", torch.uint8).numpy()
        each = quick_scores(grey, mask[0].numpy() > 0, stretch=False, empty="exact")
        scores.append(torch.tensor([each.iou, each.dice, each.mae], dtype=torch.float64))
    return list(zip(indices.tolist(), scores, strict=True))
