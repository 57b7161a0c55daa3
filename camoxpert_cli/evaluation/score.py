"""Scores a network's predictions: each image separately, at the size of its mask."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from functools import partial
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
from camoxpert_cli.inference.predictions import grey_predictions, logits_of_views
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World

Score = TypeVar("Score")

# Computes the scores of an image from its prediction uint8 (H, W) and its mask bool (H, W).
Job = Callable[[NDArray[np.uint8], NDArray[np.bool_]], Score]


class Scoring(Generic[Score]):
    """Batch-wise scoring: iterating yields the number of images in each batch; `scores` is set at the end.

    All ranks yield the same number of times, so that their callers can agree after each batch whether to continue.
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
        """`job(index)` returns the function that scores an image, on `workers` threads, or with 0 in this thread.

        The batches contain images (B, 3, S, S) uint8, masks (1, H, W) uint8 and indices; `network` is in eval mode.
        Complete batches are distributed over the ranks in turn.
        """
        self._network, self._batches, self._device, self._dtype = network, batches, device, dtype
        self._world, self._job, self._tta, self._workers = world or World(), job, tta, workers
        self.scores: list[Score] = []
        """Scores of all images by index, on every rank and bitwise identical to those of a single process."""

    def __iter__(self) -> Generator[int, None, None]:
        """Score all batches. Raises DataError on every rank if any of them cannot read an image."""
        rows: list[tuple[int, Future[Score]]] = []
        problem: DataError | None = None
        mine = iter(self._batches)
        with score_pool(self._workers) as submit:
            # A batch is scored once the network has the next one, so that a GPU never waits for scores.
            score: Callable[[], None] | None = None
            for _ in range(max(self._world.all_gather(len(self._batches)))):
                try:
                    batch = next(mine, None)  # also None after an error, which ends the iteration
                except DataError as error:
                    batch, problem = None, error
                before, score = (
                    score,
                    None if batch is None else partial(self._score, *self._start(batch), submit, rows),
                )
                if before is not None:
                    before()
                yield 0 if batch is None else len(batch[1])
            if score is not None:
                score()
            done = [(index, future.result()) for index, future in rows]
        self.scores = in_order(done, problem, self._world)

    def _start(self, batch: ScoringBatch) -> tuple[ScoringBatch, Callable[[], list[NDArray[np.uint8]]]]:
        """Compute the predictions of a batch; returns it and a function that waits for them."""
        images, masks, _ = batch
        sizes = [(mask.shape[-2], mask.shape[-1]) for mask in masks]
        views = logits_of_views(self._network, images.to(self._device, non_blocking=True), self._dtype, self._tta)
        return batch, grey_predictions(views, sizes)

    def _score(
        self,
        batch: ScoringBatch,
        wait: Callable[[], list[NDArray[np.uint8]]],
        submit: Callable[..., Future[Score]],
        rows: list[tuple[int, Future[Score]]],
    ) -> None:
        _, masks, indices = batch
        for index, prediction, mask in zip(indices.tolist(), wait(), masks, strict=True):
            rows.append((index, submit(self._job(index), prediction, mask[0].numpy() > 0)))


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
    """Run a `Scoring` with these arguments, reporting progress to `advance`, and return its scores."""
    scoring = Scoring(network, batches, device, dtype, world, job=job, tta=tta, workers=workers)
    for images in scoring:
        advance(images, "")
    return scoring.scores


def in_order(rows: Sequence[tuple[int, Score]], problem: DataError | None, world: World) -> list[Score]:
    """Return the scores of all ranks by index, or raise, on every rank, the error of the first rank that has one."""
    gathered = world.all_gather((rows, problem))
    for _, theirs in gathered:
        if theirs is not None:
            raise theirs
    return [score for _, score in sorted((row for rows, _ in gathered for row in rows), key=lambda row: row[0])]
