"""Ranks that are threads of this process: what they exchange needs no process, and no torch.distributed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from camoxpert_cli.parallel.world import World

Result = TypeVar("Result")

TIMEOUT = 60


class _Meeting:
    """Where as many threads as there are places give something each, and all get all of it."""

    def __init__(self, places: int) -> None:
        self.barrier = threading.Barrier(places, timeout=TIMEOUT)
        self.given: list[Any] = [None] * places

    def exchange(self, place: int, item: Any) -> list[Any]:
        self.given[place] = item
        self.barrier.wait()
        items = list(self.given)
        self.barrier.wait()  # nobody gives the next thing before all have taken this one
        return items


@dataclass(frozen=True)
class ThreadWorld(World):
    """Collectives between threads."""

    meeting: _Meeting = field(default_factory=lambda: _Meeting(1))

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(torch.stack(self.meeting.exchange(self.rank, tensor.clone())).sum(dim=0))

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(torch.stack(self.meeting.exchange(self.rank, tensor.clone())).amax(dim=0))

    def all_gather(self, item: Any) -> list[Any]:
        return self.meeting.exchange(self.rank, item)

    def broadcast(self, item: Any) -> Any:
        return self.meeting.exchange(self.rank, item)[0]


def in_threads(count: int, function: Callable[[World], Result]) -> list[Result]:
    """What `function` returns on each of `count` ranks; raises what one of them raises."""
    meeting = _Meeting(count)

    def run(rank: int) -> Result:
        try:
            return function(ThreadWorld(rank, count, rank, count, meeting=meeting))
        except BaseException:
            meeting.barrier.abort()  # the others need not wait
            raise

    with ThreadPoolExecutor(count) as threads:
        ranks = [threads.submit(run, rank) for rank in range(count)]
    errors = [error for each in ranks if (error := each.exception()) is not None]
    for error in sorted(errors, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise error
    return [each.result() for each in ranks]


def outcomes_in_threads(count: int, function: Callable[[World], Result]) -> list[Result | BaseException]:
    """What `function` returns or raises on each of `count` ranks, which all have to end.

    As on a machine with fewer cores than ranks, so that none has workers.
    """
    meeting = _Meeting(count)
    with ThreadPoolExecutor(count) as threads:
        worlds = [ThreadWorld(rank, count, rank, 1000, meeting=meeting) for rank in range(count)]
        ranks = [threads.submit(function, world) for world in worlds]
    return [each.exception() or each.result() for each in ranks]
