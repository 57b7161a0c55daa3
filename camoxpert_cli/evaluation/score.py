"""Scores of a network: each picture for itself, at its mask's own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.console import Advance
from camoxpert_cli.data.dataset import ScoringBatch
from camoxpert_cli.data.loader import PictureLoader
from camoxpert_cli.errors import DataError
from camoxpert_cli.evaluation.score_pool import score_pool
from camoxpert_cli.inference.predictions import grey_map, probability_maps
from camoxpert_cli.metrics.image_scores import quick_scores
from camoxpert_cli.metrics.score_set import SetScores, mean_scores
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World

Score = TypeVar("Score")

# Computes the scores of a picture from its map uint8 (H, W) and its mask bool (H, W).
Job = Callable[[NDArray[np.uint8], NDArray[np.bool_]], Score]


def evaluate(
    network: CamoXpert,
    batches: PictureLoader[ScoringBatch],
    device: torch.device,
    dtype: torch.dtype | None,
    advance: Advance,
    world: World | None = None,
) -> SetScores:
    """The measures that are cheap enough for every epoch, of the maps and in the way of all others.

    The arguments are those of `score_pictures`.
    """
    return mean_scores(score_pictures(network, batches, device, dtype, advance, world, job=lambda _: quick_scores))


def score_pictures(
    network: CamoXpert,
    batches: PictureLoader[ScoringBatch],
    device: torch.device,
    dtype: torch.dtype | None,
    advance: Advance,
    world: World | None = None,
    *,
    job: Callable[[int], Job[Score]],
    tta: Tta = NO_TTA,
    workers: int = 0,
) -> list[Score]:
    """What `job(index)` gives for each picture, in the order of their indices; `network` is in eval mode.

    The batches hold pictures (B, 3, S, S) uint8, masks (1, H, W) uint8 and indices. Jobs run on
    so many `workers` threads beside the network, or with 0 in its own. Several ranks take whole batches in turn, and
    each gets the scores of all pictures, to the bits of one process.
    Raises DataError, on every rank, for a picture that any of them cannot read.
    """
    world = world or World()
    rows: list[tuple[int, Future[Score]]] = []
    problem: DataError | None = None
    mine = iter(batches)
    with score_pool(workers) as submit:
        # Every rank goes as many rounds, for `advance` may have to agree with the others on whether to stop.
        for _ in range(max(world.gather(len(batches)))):
            try:
                batch = None if problem is not None else next(mine, None)
            except DataError as error:
                batch, problem = None, error
            if batch is not None:
                images, masks, indices = batch
                sizes = [(mask.shape[-2], mask.shape[-1]) for mask in masks]
                maps = probability_maps(network, images.to(device, non_blocking=True), sizes, dtype, tta)
                for index, probability, mask in zip(indices.tolist(), maps, masks, strict=True):
                    rows.append((index, submit(job(index), grey_map(probability), mask[0].numpy() > 0)))
            advance(0 if batch is None else len(batch[1]), "")
        done = [(index, future.result()) for index, future in rows]
    return in_order(done, problem, world)


def in_order(rows: Sequence[tuple[int, Score]], problem: DataError | None, world: World) -> list[Score]:
    """The scores of all ranks in the order of their indices, or on every rank the problem of the first that has one."""
    gathered = world.gather((rows, problem))
    for _, theirs in gathered:
        if theirs is not None:
            raise theirs
    return [score for _, score in sorted((row for rows, _ in gathered for row in rows), key=lambda row: row[0])]
