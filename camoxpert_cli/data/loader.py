"""DataLoaders whose workers change nothing but the speed, and whose errors stay readable."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from camoxpert_cli.data.dataset import ScoringBatch, ScoringPictures, TrainingPictures, collate_scoring
from camoxpert_cli.data.sampling import EpochBatches
from camoxpert_cli.errors import DataError

# At 6 ms for a picture of 640×640 pixels, eight read more than 1000 a second; more would only take memory.
_MAX_WORKERS = 8
# After a request to terminate, a worker waits so long for its main process to save.
_LINGER_SECONDS = 30

Batch = TypeVar("Batch")


class PictureLoader(Generic[Batch]):
    """Iterates over the batches of a DataLoader and raises the DataError of a worker as it was raised there."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, DataError):
                try:
                    raise batch
                finally:
                    # The error's traceback holds this frame: were the frame to hold the error too, the garbage
                    # collector would have to end the workers, and it waits five seconds for each.
                    del batch
            yield batch


def training_loader(
    dataset: TrainingPictures, batches: EpochBatches, num_workers: int, pin_memory: bool = False
) -> PictureLoader[tuple[Tensor, Tensor]]:
    """Pictures uint8 (B, 3, S, S) and masks uint8 (B, 1, S, S) of one rank, as `batches` says; B may be 0.

    One loader serves all epochs, and its workers live as long: call `batches.start_at` before each iteration.
    """
    return _loader(dataset, batches, dataset.collate, num_workers, pin_memory)


def scoring_loader(
    dataset: ScoringPictures,
    batch_size: int,
    num_workers: int,
    pin_memory: bool = False,
    rank: int = 0,
    world: int = 1,
) -> PictureLoader[ScoringBatch]:
    """What `collate_scoring` gives for pictures `rank`, `rank + world`, ...: over all ranks each exactly once.

    A rank may have no batch at all, where there are fewer pictures than ranks.
    """
    mine = range(rank, len(dataset), world)
    batches = [mine[at : at + batch_size] for at in range(0, len(mine), batch_size)]
    return _loader(dataset, batches, collate_scoring, num_workers, pin_memory)


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may use, at least 1: its affinity, and the CPU quota of a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, _cpu_quota(cgroup))))


def auto_workers(ranks: int = 1) -> int:
    """Workers for each of `ranks` processes on this machine: an even share of the cores, at most 8; may be 0."""
    return min(_MAX_WORKERS, usable_cores() // ranks)


class _Guarded(Dataset[Any]):
    """Returns a DataError in place of the sample: torch would raise it anew with a traceback as its message."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except DataError as error:
            return error


class _GuardedCollate:
    """Collates samples, or returns the first error among them."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> Any:
        return next((each for each in samples if isinstance(each, DataError)), None) or self.collate(samples)


def _loader(
    dataset: Dataset[Any], batches: Any, collate: Callable[[Any], Any], num_workers: int, pin_memory: bool
) -> PictureLoader[Any]:
    loader = DataLoader(
        _Guarded(dataset),
        batch_sampler=batches,
        collate_fn=_GuardedCollate(collate),
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # A generator of its own: each iteration draws a seed, which would move the global one.
        generator=torch.Generator(),
        persistent_workers=num_workers > 0,
    )
    return PictureLoader(loader)


def _start_worker(_: int) -> None:
    # Ctrl-C, and often SIGTERM, reach every process of a group. The main one ends the workers when it is ready to; were
    # they to go first, torch would raise an error in the middle of whatever it is doing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _linger)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _linger(_: int, frame: FrameType | None) -> None:
    signal.alarm(_LINGER_SECONDS)


def _cpu_quota(cgroup: Path) -> float:
    """Cores a container may use (cgroup v2, then v1); infinity where nothing limits it."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return math.inf
    return math.inf if quota == "max" or int(quota) < 0 else int(quota) / int(period)
