"""The scores that a run validates by, of any batches, and ranks that are threads, to score images together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from camoxpert_cli.data.dataset import ScoringBatch
from camoxpert_cli.data.loader import ImageLoader
from camoxpert_cli.evaluation.score import score_images
from camoxpert_cli.metrics.image_scores import quick_scores
from camoxpert_cli.metrics.score_set import SetScores, mean_scores
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World


def evaluate(network: CamoXpert, batches: ImageLoader[ScoringBatch], world: World | None = None) -> SetScores:
    """On the CPU, in float32."""
    scores = score_images(
        network, batches, torch.device("cpu"), None, lambda count, note: None, world, job=lambda _: quick_scores
    )
    return mean_scores(scores)


Result = TypeVar("Result")


class _Meeting:
    """Where threads wait for each other to hand something round."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=10)
        self._items: list[Any] = [None] * size

    def gather(self, rank: int, item: Any) -> list[Any]:
        self._items[rank] = item
        self._barrier.wait()
        items = list(self._items)
        self._barrier.wait()  # nobody hands in the next before all have taken these
        return items


@dataclass(frozen=True)
class _ThreadWorld(World):
    meeting: _Meeting = field(default_factory=lambda: _Meeting(1))

    def all_gather(self, item: Any) -> list[Any]:
        return self.meeting.gather(self.rank, item)


def in_thread_ranks(size: int, function: Callable[[World], Result]) -> list[Result | Exception]:
    """What `function` returns or raises on each of so many ranks, which can `all_gather` and nothing else.

    As on a machine with fewer cores than ranks, so that none has workers.
    """
    meeting = _Meeting(size)

    def rank(number: int) -> Result | Exception:
        try:
            return function(_ThreadWorld(number, size, number, 1000, meeting=meeting))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(rank, range(size)))
