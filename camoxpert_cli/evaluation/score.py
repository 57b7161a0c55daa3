"""Scores of a network: each image for itself, at its mask's own size."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.console import Advance
from camoxpert_cli.data.dataset import ScoringBatch
from camoxpert_cli.data.loader import ImageLoader
from camoxpert_cli.errors import DataError
from camoxpert_cli.evaluation.score_pool import score_pool
from camoxpert_cli.inference.predictions import grey_prediction, predict_probabilities
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World

Score = TypeVar("Score")

# Computes the scores of an image from its map uint8 (H, W) and its mask bool (H, W).
Job = Callable[[NDArray[np.uint8], NDArray[np.bool_]], Score]


class Scoring(Generic[Score]):
    """Scores images batch by batch: iterate to the end, which yields each batch's images, then look at `scores`.

    Every rank yields as often as the others, so that whoever iterates may agree with them on whether to go on.
    """

    def __init__(
        self,
        network: CamoXpert,
        batches: ImageLoader[ScoringBatch],
        device: torch.device,
        dtype: torch.dtype | None,
        world: World | None = None,
        *,
        job: Callable[[int], Job[Score]],
        tta: Tta = NO_TTA,
        workers: int = 0,
    ) -> None:
        """`job(index)` scores an image, on so many `workers` threads beside the network, or with 0 in its own.

        The batches hold images (B, 3, S, S) uint8, masks (1, H, W) uint8 and indices; `network` is in eval mode.
        Several ranks take whole batches in turn.
        """
        self._network, self._batches, self._device, self._dtype = network, batches, device, dtype
        self._world, self._job, self._tta, self._workers = world or World(), job, tta, workers
        self.scores: list[Score] = []
        """Of all images in the order of their indices, on every rank and to the bits of one process."""

    def __iter__(self) -> Generator[int, None, None]:
        """Raises DataError, on every rank, for an image that any of them cannot read."""
        rows: list[tuple[int, Future[Score]]] = []
        problem: DataError | None = None
        mine = iter(self._batches)
        with score_pool(self._workers) as submit:
            for _ in range(max(self._world.all_gather(len(self._batches)))):
                try:
                    batch = next(mine, None)  # None, too, after an error: that ends the iteration
                except DataError as error:
                    batch, problem = None, error
                if batch is not None:
                    images, masks, indices = batch
                    sizes = [(mask.shape[-2], mask.shape[-1]) for mask in masks]
                    images = images.to(self._device, non_blocking=True)
                    predictions = predict_probabilities(self._network, images, sizes, self._dtype, self._tta)
                    for index, probability, mask in zip(indices.tolist(), predictions, masks, strict=True):
                        rows.append(
                            (index, submit(self._job(index), grey_prediction(probability), mask[0].numpy() > 0))
                        )
                yield 0 if batch is None else len(batch[1])
            done = [(index, future.result()) for index, future in rows]
        self.scores = in_order(done, problem, self._world)


def score_images(
    network: CamoXpert,
    batches: ImageLoader[ScoringBatch],
    device: torch.device,
    dtype: torch.dtype | None,
    advance: Advance,
    world: World | None = None,
    *,
    job: Callable[[int], Job[Score]],
    tta: Tta = NO_TTA,
    workers: int = 0,
) -> list[Score]:
    """The scores of a `Scoring` of all that, which tells `advance` how far it is."""
    scoring = Scoring(network, batches, device, dtype, world, job=job, tta=tta, workers=workers)
    for images in scoring:
        advance(images, "")
    return scoring.scores


def in_order(rows: Sequence[tuple[int, Score]], problem: DataError | None, world: World) -> list[Score]:
    """The scores of all ranks in the order of their indices, or on every rank the problem of the first that has one."""
    gathered = world.all_gather((rows, problem))
    for _, theirs in gathered:
        if theirs is not None:
            raise theirs
    return [score for _, score in sorted((row for rows, _ in gathered for row in rows), key=lambda row: row[0])]
