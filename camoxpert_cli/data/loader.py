"""DataLoaders whose number of workers affects only speed, and whose errors stay readable."""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from camoxpert_cli.data.dataset import ScoringBatch, ScoringImages, TrainingImages, collate_scoring
from camoxpert_cli.data.sampling import EpochBatches
from camoxpert_cli.errors import DataError
from camoxpert_cli.signals import ASKING

# After SIGTERM, a worker stays alive this long so that its main process can save.
_LINGER_SECONDS = 30

Batch = TypeVar("Batch")

_workers: WeakSet[BaseProcess] = WeakSet()
os.register_at_fork(after_in_child=_workers.clear)  # they belong to this process only


@atexit.register
def _end_workers() -> None:
    """If an error still references their loaders, Python would only send them SIGTERM and then wait for them."""
    for each in _workers:
        each.kill()


class WorkerLost(DataError):
    """A loader worker exited unexpectedly, for example because it was killed."""


class ImageLoader(Generic[Batch]):
    """Iterator over the batches of a DataLoader that raises a worker's DataError unchanged."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self.waited = 0.0
        """Seconds spent waiting for batches, over all iterations."""

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        with _unwatched(), self._telling_of_lost_workers():
            batches = iter(self._loader)
        _workers.update(getattr(batches, "_workers", ()))
        while True:
            asked = time.perf_counter()
            with self._telling_of_lost_workers():
                batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            if isinstance(batch, DataError):
                try:
                    raise batch
                finally:
                    # The error's traceback references this frame. If the frame also referenced the error, only the
                    # garbage collector could end the workers, and it waits five seconds for each.
                    del batch
            yield batch

    @contextmanager
    def _telling_of_lost_workers(self) -> Iterator[None]:
        """Raise WorkerLost in place of whatever torch raises when a worker has exited."""
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            if (lost := _lost_worker(self._loader._iterator)) is None:
                raise
            raise lost from error


def training_loader(
    dataset: TrainingImages, batches: EpochBatches, num_workers: int, pin_memory: bool = False
) -> ImageLoader[tuple[Tensor, Tensor]]:
    """Create a loader of images uint8 (B, 3, S, S) and masks uint8 (B, 1, S, S) for one rank.

    `batches` selects the samples; B may be 0. One loader and its workers serve all epochs: call `batches.start_at`
    before each iteration.
    """
    return _loader(dataset, batches, dataset.collate, num_workers, pin_memory)


def scoring_loader(
    dataset: ScoringImages,
    batch_size: int,
    num_workers: int,
    pin_memory: bool = False,
    rank: int = 0,
    world: int = 1,
) -> ImageLoader[ScoringBatch]:
    """Create a loader of what `collate_scoring` returns for batches `rank`, `rank + world`, ....

    Over all ranks, each batch occurs exactly once. Ranks process complete batches, so each image is in the same batch
    as with a single process. A rank may have no batch.
    """
    count = len(dataset)
    batches = [range(at, min(at + batch_size, count)) for at in range(0, count, batch_size)][rank::world]
    return _loader(dataset, batches, collate_scoring, num_workers, pin_memory)


class _Guarded(Dataset[Any]):
    """Returns a DataError in place of the sample: torch would re-raise it with a traceback as its message."""

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
) -> ImageLoader[Any]:
    loader = DataLoader(
        _Guarded(dataset),
        batch_sampler=batches,
        collate_fn=_GuardedCollate(collate),
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # A separate generator: each iteration draws a seed, which would advance the global one.
        generator=torch.Generator(),
        persistent_workers=num_workers > 0,
    )
    return ImageLoader(loader)


@contextmanager
def _unwatched() -> Iterator[None]:
    """Keep torch from raising an error in the middle of a step as soon as a worker exits.

    The error is raised when the next batch is requested, at the latest after torch's polling interval of five seconds.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)


def _lost_worker(batches: Any) -> WorkerLost | None:
    """Why one of this iterator's workers exited, or None. The others, which may be waiting for it, are killed."""
    workers = getattr(batches, "_workers", ())
    if workers:
        ended = connection.wait([each.sentinel for each in workers], timeout=1)
        for each in workers:
            if each.sentinel in ended:
                each.join(1)  # its pipe closes before it is reaped
    code = next((each.exitcode for each in workers if each.exitcode), None)
    if code is None:
        return None
    for each in workers:
        each.kill()
    how = f"exited with code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
    causes = {
        -signal.SIGKILL: ", probably because the machine ran out of memory",
        -signal.SIGBUS: ": the shared memory in /dev/shm is full",
    }
    hint = "free some memory, then run the same command again"
    if code == -signal.SIGBUS:
        hint = "give the container more shared memory (docker run --shm-size=2g), then run the same command again"
    return WorkerLost(f"a data-loading worker {how}{causes.get(code, '')}", hint)


def _start_worker(_: int) -> None:
    # Ctrl-C, and often other signals, reach every process of a group. The main process ends the workers when it is
    # ready; if they exited first, torch would raise an error in the middle of whatever it is doing.
    for number in ASKING:
        signal.signal(number, _linger if number == signal.SIGTERM else signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _linger(_: int, frame: FrameType | None) -> None:
    signal.alarm(_LINGER_SECONDS)
