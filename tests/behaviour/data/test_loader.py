from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from camoxpert_cli.data.cache import ImageCache
from camoxpert_cli.data.dataset import ScoringImages, TrainingImages
from camoxpert_cli.data.loader import ImageLoader, WorkerLost, scoring_loader, training_loader
from camoxpert_cli.data.mask_memory import MaskMemory
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.resizing import read_resized
from camoxpert_cli.data.sampling import EpochBatches, epoch_order
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import build, square_mask, write, write_pairs

COUNT = 7
SEED = 5
# Python 3.12 warns of any fork while threads run; workers use none of the parent's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
# torch warns of more workers than there are cores; that is slower, and changes nothing else.
any_number_of_workers = pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker:UserWarning")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, ...]:
    return write_pairs(tmp_path_factory.mktemp("pictures"), COUNT)


@pytest.fixture
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks whether workers live every 0.2 s, rather than every 5 s."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


@pytest.fixture(scope="module")
def cache(pairs: tuple[Pair, ...], tmp_path_factory: pytest.TempPathFactory) -> ImageCache:
    return build(tmp_path_factory.mktemp("cache"), pairs, 16)


def loader_of(
    pairs: tuple[Pair, ...], num_workers: int, rank: int = 0, world: int = 1, cache: ImageCache | None = None
) -> tuple[EpochBatches, ImageLoader[tuple[Tensor, Tensor]]]:
    batches = EpochBatches(len(pairs), 2, SEED, rank, world)
    return batches, training_loader(TrainingImages(pairs, 16, SEED, cache), batches, num_workers)


def samples_of(loader: ImageLoader[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Image and mask of every sample of a loop, each as one tensor (4, S, S)."""
    return [sample for images, masks in loader for sample in torch.cat([images, masks], 1)]


def epochs(pairs: tuple[Pair, ...], num_workers: int, count: int = 2) -> list[Tensor]:
    """Every sample of the first epochs."""
    batches, loader = loader_of(pairs, num_workers)
    samples: list[Tensor] = []
    for epoch in range(count):
        batches.start_at(epoch)
        samples += samples_of(loader)
    return samples


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def stream(pairs: tuple[Pair, ...]) -> list[Tensor]:
    """Two epochs as the order of samples and the augmentation define them, without a loader."""
    dataset = TrainingImages(pairs, 16, SEED)
    samples = [dataset[epoch, int(index)] for epoch in range(2) for index in epoch_order(COUNT, SEED, epoch)]
    return [torch.cat([image.permute(2, 0, 1), mask[None]]) for image, mask in samples]


@pytest.mark.parametrize(
    ("num_workers", "world", "cached"), [(0, 1, False), (0, 2, True), (0, 3, False), (1, 1, True), (3, 2, False)]
)
@any_number_of_workers
def test_stream(
    pairs: tuple[Pair, ...], cache: ImageCache, stream: list[Tensor], num_workers: int, world: int, cached: bool
) -> None:
    """Over two epochs workers, ranks and the cache change neither a sample nor the order."""
    ranks = [loader_of(pairs, num_workers, rank, world, cache if cached else None) for rank in range(world)]
    samples: list[Tensor] = []
    for epoch in range(2):
        for batches, _ in ranks:
            batches.start_at(epoch)
        for shares in zip(*(loader for _, loader in ranks), strict=True):
            samples += [sample for images, masks in shares for sample in torch.cat([images, masks], 1)]

    assert same(samples, stream)


def test_epochs_differ(pairs: tuple[Pair, ...]) -> None:
    """The second epoch is neither the order nor the augmentation of the first."""
    samples = epochs(pairs, 0)

    assert {each.numpy().tobytes() for each in samples[:COUNT]} != {each.numpy().tobytes() for each in samples[COUNT:]}


@pytest.mark.parametrize(("num_workers", "cached"), [(0, True), (2, False)])
def test_cut_changes_nothing(
    pairs: tuple[Pair, ...], cache: ImageCache, stream: list[Tensor], num_workers: int, cached: bool
) -> None:
    """An epoch cut after any batch goes on with the very samples that were left, on the same loader."""
    batches, loader = loader_of(pairs, num_workers, cache=cache if cached else None)

    for position in (2, 4, 6):
        batches.start_at(0, position)
        assert same(samples_of(loader), stream[position:COUNT])


def test_cut_where_ranks_change(pairs: tuple[Pair, ...], stream: list[Tensor]) -> None:
    """What two ranks leave of an epoch, one rank goes on with."""
    ranks = [loader_of(pairs, 0, rank, 2)[1] for rank in range(2)]
    first = [torch.cat(next(iter(loader)), 1) for loader in ranks]
    batches, loader = loader_of(pairs, 0)
    batches.start_at(0, 4)

    assert same([*torch.cat(first), *samples_of(loader)], stream[:COUNT])


def test_waited(pairs: tuple[Pair, ...]) -> None:
    """The time spent in waiting grows with every batch, over all iterations of a loader."""
    _, loader = loader_of(pairs, 1)
    seen = [loader.waited]
    for _ in range(2):
        seen += [loader.waited for _ in loader]

    assert seen[0] == 0
    assert len(seen) == 9
    assert seen == sorted(set(seen))


def test_waited_leaves_out_what_is_done_with_batches(pairs: tuple[Pair, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that passes between two batches, while the caller works, is no waiting."""
    ticks = itertools.count()
    monkeypatch.setattr("camoxpert_cli.data.loader.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    _, loader = loader_of(pairs, 0)
    for _ in loader:
        for _ in range(100):
            next(ticks)

    # One tick for each of four batches, and for the end.
    assert loader.waited == 5


def test_iteration_left_in_the_middle(pairs: tuple[Pair, ...]) -> None:
    """A loop left early does not leak what its workers had prepared into the next one."""
    batches, loader = loader_of(pairs, 2)
    next(iter(loader))

    assert same(samples_of(loader), epochs(pairs, 0, count=1))
    assert len(loader) == len(batches) == 4


def test_a_rank_without_a_sample(pairs: tuple[Pair, ...]) -> None:
    """Where the last batch has fewer samples than ranks, a rank gets a batch of none, so that all have as many.

    With workers and without.
    """
    for num_workers in (0, 1):
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
    scoring = scoring_loader(ScoringImages(pairs, 16), 2, num_workers)

    for error in (error_of(training), error_of(scoring)):
        assert error.message == f"{pairs[3].image} cannot be decoded as an image"
        assert "viewer" in error.hint
        assert "Traceback" not in str(error)


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


@pytest.mark.usefixtures("frequent_checks")
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGKILL, "was killed by SIGKILL, probably because the machine ran out of memory"),
        (signal.SIGBUS, "was killed by SIGBUS: the shared memory in /dev/shm is full"),
    ],
)
def test_a_worker_that_is_killed(tmp_path: Path, number: signal.Signals, told: str) -> None:
    """It is a sentence, in training and in scoring, and nobody waits for those that wait for it."""
    many = write_pairs(tmp_path, 40)
    _, training = loader_of(many, 2)
    for loader in (training, scoring_loader(ScoringImages(many, 16), 2, 2)):
        others = multiprocessing.active_children()
        batches: Any = iter(loader)
        next(batches)
        before = [each for each in multiprocessing.active_children() if each not in others]
        assert before[0].pid is not None
        os.kill(before[0].pid, number)
        with pytest.raises(WorkerLost, match=f"^a data-loading worker {told}"):
            list(batches)
        for each in before:
            each.join(20)
            assert each.exitcode is not None


@pytest.mark.usefixtures("frequent_checks")
def test_a_worker_that_is_killed_between_epochs(pairs: tuple[Pair, ...]) -> None:
    """It is the same sentence where the next epoch begins: workers outlive an epoch."""
    others = multiprocessing.active_children()
    _, loader = loader_of(pairs, 2)
    list(loader)
    worker = next(each for each in multiprocessing.active_children() if each not in others)
    worker.kill()
    worker.join()

    with pytest.raises(WorkerLost, match=r"^a data-loading worker was killed by SIGKILL"):
        list(loader)


def test_workers_of_a_loader_that_an_error_holds(pairs: tuple[Pair, ...]) -> None:
    """They end with the process, which would wait half a minute for those that it only asks to terminate."""
    program = f"""
from pathlib import Path
from camoxpert_cli.data.pairs import Pair
from tests.behaviour.data.test_loader import loader_of
rows = {[(pair.name, str(pair.image), str(pair.mask)) for pair in pairs]!r}
loader = loader_of(tuple(Pair(name, Path(image), Path(mask)) for name, image, mask in rows), 2)[1]
held = iter(loader)
next(held)
raise SystemExit(3)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 3


def test_a_worker_that_ends_interrupts_nothing(pairs: tuple[Pair, ...]) -> None:
    """Torch would raise its error in the middle of a step, of a save."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        _, loader = loader_of(pairs, 1)
        for _ in loader:
            assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


def error_of(loader: ImageLoader[Any]) -> DataError:
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


class Signalled(Threads):
    """Sends the process that reads what Ctrl-C and a request to terminate send it, and tells which process that is."""

    def __getitem__(self, key: Any) -> int:  # type: ignore[override]
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        return os.getpid()


def test_workers_outlive_signals_and_epochs() -> None:
    """A worker leaves Ctrl-C and SIGTERM to the main process, which may have to save first, and serves all epochs."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)]
    try:
        loader: Any = training_loader(Signalled(), EpochBatches(3, 1, 0), num_workers=1)  # type: ignore[arg-type]
        readers = [int(batch) for _ in range(2) for batch in loader]
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)

    assert len(readers) == 6
    assert len({*readers, os.getpid()}) == 2


def test_workers_run_one_thread() -> None:
    """A worker uses one thread in torch and in OpenCV: there are as many workers as cores."""
    loader = training_loader(Threads(), EpochBatches(1, 1, 0), num_workers=1)  # type: ignore[arg-type]

    assert [[int(each) for each in batch] for batch in loader] == [[1, 1]]


@pytest.mark.parametrize(("world", "num_workers"), [(1, 2), (2, 0), (3, 0)])
def test_scoring_loader(pairs: tuple[Pair, ...], world: int, num_workers: int) -> None:
    """Each image comes exactly once over all ranks, with its own mask, twice the same."""
    dataset = ScoringImages(pairs, 16)
    seen = []
    for rank in range(world):
        loader = scoring_loader(dataset, 3, num_workers, rank=rank, world=world)
        for _ in range(2):
            for images, masks, indices in loader:
                seen += indices.tolist()
                assert all(torch.equal(mask, dataset[int(i)][1]) for mask, i in zip(masks, indices, strict=True))
                assert all(torch.equal(image, dataset[int(i)][0]) for image, i in zip(images, indices, strict=True))

    assert sorted(seen) == sorted([*range(COUNT)] * 2)


@pytest.mark.parametrize(("batch_size", "world"), [(2, 2), (2, 3), (3, 2)])
def test_scoring_batches_of_ranks_are_those_of_one(pairs: tuple[Pair, ...], batch_size: int, world: int) -> None:
    """Each image is scored in the same company as by one process."""

    def batches(rank: int = 0, world: int = 1) -> list[list[int]]:
        loader = scoring_loader(ScoringImages(pairs, 16), batch_size, 0, rank=rank, world=world)
        return [indices.tolist() for _, _, indices in loader]

    alone = batches()
    assert sorted(itertools.chain.from_iterable(batches(rank, world) for rank in range(world))) == alone
    assert sum(alone, []) == list(range(COUNT))  # noqa: RUF017  # a few numbers


def test_scoring_rank_without_images(pairs: tuple[Pair, ...]) -> None:
    """A rank beyond the number of images has no batch."""
    assert list(scoring_loader(ScoringImages(pairs[:1], 16), 3, 0, rank=1, world=2)) == []


def test_forked_workers_share_masks(tmp_path: Path) -> None:
    """What one process read is in the memory of the others."""
    (pair,) = write_pairs(tmp_path, 1)
    expected = read_resized(pair, 16)[1]
    memory = MaskMemory(1, 16)
    worker = multiprocessing.get_context("fork").Process(target=memory.read, args=(0, pair))
    worker.start()
    worker.join(60)
    write(pair.mask, square_mask(5))

    assert worker.exitcode == 0
    assert np.array_equal(memory.read(0, pair)[1], expected)
