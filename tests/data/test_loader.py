from __future__ import annotations

import contextlib
import multiprocessing
import os
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from camoxpert_cli.data.dataset import ScoringPictures, TrainingPictures
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.loader import PictureLoader, auto_workers, scoring_loader, training_loader, usable_cores
from camoxpert_cli.data.sampling import EpochBatches
from camoxpert_cli.errors import DataError

from .files import write_pairs

COUNT = 7
SEED = 5
# Python 3.12 warns of any fork while threads run; workers use none of the parent's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, ...]:
    return write_pairs(tmp_path_factory.mktemp("pictures"), COUNT)


def loader_of(
    pairs: tuple[Pair, ...], num_workers: int, rank: int = 0, world: int = 1
) -> tuple[EpochBatches, PictureLoader[tuple[Tensor, Tensor]]]:
    batches = EpochBatches(len(pairs), 2, SEED, rank, world)
    return batches, training_loader(TrainingPictures(pairs, 16, SEED), batches, num_workers)


def epochs(pairs: tuple[Pair, ...], num_workers: int, count: int = 2) -> list[Tensor]:
    """Picture and mask of every sample of the first epochs, each as one tensor (4, S, S)."""
    batches, loader = loader_of(pairs, num_workers)
    samples: list[Tensor] = []
    for epoch in range(count):
        batches.start_at(epoch)
        samples += [sample for images, masks in loader for sample in torch.cat([images, masks], 1)]
    return samples


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(pairs: tuple[Pair, ...], num_workers: int) -> None:
    """The stream over two epochs is the same in this process and in workers that outlive an epoch."""
    assert same(epochs(pairs, 0), epochs(pairs, num_workers))


def test_epochs_differ(pairs: tuple[Pair, ...]) -> None:
    """The second epoch is neither the order nor the augmentation of the first."""
    samples = epochs(pairs, 0)

    assert {each.numpy().tobytes() for each in samples[:COUNT]} != {each.numpy().tobytes() for each in samples[COUNT:]}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_cut_changes_nothing(pairs: tuple[Pair, ...], num_workers: int) -> None:
    """An epoch cut after any batch goes on with the very samples that were left, on the same loader."""
    whole = epochs(pairs, 0, count=1)
    batches, loader = loader_of(pairs, num_workers)

    for position in (2, 4, 6):
        batches.start_at(0, position)
        rest = [sample for images, masks in loader for sample in torch.cat([images, masks], 1)]
        assert same(rest, whole[position:])


def test_iteration_left_in_the_middle(pairs: tuple[Pair, ...]) -> None:
    """A loop left early does not leak what its workers had prepared into the next one."""
    batches, loader = loader_of(pairs, 2)
    next(iter(loader))

    samples = [sample for images, masks in loader for sample in torch.cat([images, masks], 1)]
    assert same(samples, epochs(pairs, 0, count=1))
    assert len(loader) == len(batches) == 4


def test_ranks_share_the_stream(pairs: tuple[Pair, ...]) -> None:
    """Two ranks see together what one rank sees alone, with the same augmentation."""
    one = epochs(pairs, 0, count=1)
    two: list[Tensor] = []
    for shares in zip(*(loader_of(pairs, 0, rank, world=2)[1] for rank in range(2)), strict=True):
        two += [sample for images, masks in shares for sample in torch.cat([images, masks], 1)]

    assert same(one, two)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_rank_without_a_sample(pairs: tuple[Pair, ...], num_workers: int) -> None:
    """Where the last batch has fewer samples than ranks, a rank gets a batch of none, so that all have as many."""
    batches, loader = loader_of(pairs, num_workers, 0, world=2)
    batches.start_at(0, len(pairs) - 1)
    (batch,) = loader
    images, masks = batch

    assert (images.dtype, images.shape[0], images.shape[1]) == (torch.uint8, 0, 3)
    assert (masks.dtype, masks.shape[0], masks.shape[1]) == (torch.uint8, 0, 1)
    assert images.shape[2:] == masks.shape[2:]


def test_global_random_numbers_are_left_alone(pairs: tuple[Pair, ...]) -> None:
    """Reading an epoch draws nothing from torch's global generator."""
    before = torch.random.get_rng_state()
    epochs(pairs, 0)
    epochs(pairs, 1, count=1)

    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_error_of_a_worker(tmp_path: Path, num_workers: int) -> None:
    """A DataError reaches the caller as it was raised: message and hint, without a traceback in its text."""
    pairs = write_pairs(tmp_path, COUNT)
    pairs[3].image.write_bytes(b"not a picture")
    _, training = loader_of(pairs, num_workers)
    scoring = scoring_loader(ScoringPictures(pairs, 16), 2, num_workers)

    for error in (error_of(training), error_of(scoring)):
        assert error.message == str(error) == f"{pairs[3].image} cannot be read as a picture"
        assert "viewer" in error.hint


def test_workers_end_after_an_error(tmp_path: Path) -> None:
    """Once the error and the loader are dropped the workers are gone, without the help of the garbage collector."""
    pairs = write_pairs(tmp_path, COUNT)
    pairs[3].image.write_bytes(b"not a picture")
    _, loader = loader_of(pairs, 2)
    with contextlib.suppress(DataError):
        list(loader)
    running = len(multiprocessing.active_children())
    del loader

    assert running - len(multiprocessing.active_children()) == 2


def error_of(loader: PictureLoader[Any]) -> DataError:
    """The error of a loop, without its traceback: the frames there hold the loader and so its workers."""
    try:
        list(loader)
    except DataError as error:
        return error.with_traceback(None)
    raise AssertionError("no error was raised")


class Threads(Dataset[Any]):
    """Tells how many threads the process that reads has."""

    def __getitem__(self, key: Any) -> tuple[int, int]:
        return torch.get_num_threads(), cv2.getNumThreads()

    def collate(self, samples: Any) -> Any:
        return default_collate(samples)


def test_workers_run_one_thread() -> None:
    """A worker uses one thread in torch and in OpenCV: there are as many workers as cores."""
    loader = training_loader(Threads(), EpochBatches(1, 1, 0), num_workers=1)  # type: ignore[arg-type]

    assert [[int(each) for each in batch] for batch in loader] == [[1, 1]]


@pytest.mark.parametrize(("world", "num_workers"), [(1, 0), (1, 2), (2, 0), (3, 0)])
def test_scoring_loader(pairs: tuple[Pair, ...], world: int, num_workers: int) -> None:
    """Each picture comes exactly once over all ranks, with its own mask, twice the same."""
    pictures = ScoringPictures(pairs, 16)
    seen = []
    for rank in range(world):
        loader = scoring_loader(pictures, 3, num_workers, rank=rank, world=world)
        for _ in range(2):
            for images, masks, indices in loader:
                seen += indices.tolist()
                assert all(torch.equal(mask, pictures[int(i)][1]) for mask, i in zip(masks, indices, strict=True))
                assert all(torch.equal(image, pictures[int(i)][0]) for image, i in zip(images, indices, strict=True))

    assert sorted(seen) == sorted([*range(COUNT)] * 2)


def test_scoring_rank_without_pictures(pairs: tuple[Pair, ...]) -> None:
    """A rank beyond the number of pictures has no batch."""
    assert list(scoring_loader(ScoringPictures(pairs[:1], 16), 3, 0, rank=1, world=2)) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 6),
        ({"cpu.max": "max 100000\n"}, 6),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ],
)
def test_usable_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int) -> None:
    """The cores of this process are those of its affinity, or fewer where the container has a quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    assert usable_cores(tmp_path) == expected


@pytest.mark.parametrize(("cores", "ranks", "expected"), [(4, 1, 4), (4, 2, 2), (1, 2, 0), (64, 1, 8), (1, 1, 1)])
def test_auto_workers(monkeypatch: pytest.MonkeyPatch, cores: int, ranks: int, expected: int) -> None:
    """Ranks share the cores evenly, up to a bound."""
    monkeypatch.setattr("camoxpert_cli.data.loader.usable_cores", lambda: cores)

    assert auto_workers(ranks) == expected
