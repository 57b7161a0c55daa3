"""How many training images a second one core delivers, beside a plain loader.

    python -m tests.benchmarks.loader [IMAGES] [--pairs 10]

Both read generated JPEGs of 737×964 with PNG masks at 320 pixels in one worker on one core, flip, turn and recolour
with the same probabilities, collate batches of 16 and hand them to the parent process. Neither normalizes. The plain
loader decodes with OpenCV, resizes and augments with albumentations, and puts channels first. Their epochs are
interleaved; the first, in which workers start and camox without a cache reads the masks, which it then keeps in memory,
is not counted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `tests` is, for whoever starts this file by its path

from camoxpert_cli.data.cache import ImageCache, build_cache, cache_bytes, cache_path
from camoxpert_cli.data.dataset import TrainingImages
from camoxpert_cli.data.loader import training_loader
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.sampling import EpochBatches
from camoxpert_cli.data.synthetic import PHOTOGRAPH_SIZE, write_photographs
from tests.benchmarks.table import Row, compared, report

SIZE, BATCH = 320, 16
PAPERS = 4040  # training images of COD10K and CAMO together


class PlainImages(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs
        self.transform = A.Compose(
            [
                A.Resize(SIZE, SIZE),
                A.HorizontalFlip(p=0.5),
                A.VerticalFlip(p=0.2),
                A.RandomRotate90(p=0.2),
                A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, p=0.5),
            ]
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        bgr, mask = cv2.imread(str(pair.image)), cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
        assert bgr is not None
        assert mask is not None
        done = self.transform(image=cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), mask=(mask > 127).astype(np.uint8))
        image = np.ascontiguousarray(done["image"].transpose(2, 0, 1))
        return torch.from_numpy(image), torch.from_numpy(np.ascontiguousarray(done["mask"]))[None]


def plain_loader(pairs: list[Pair]) -> Callable[[int], Iterable[Any]]:
    loader = DataLoader(
        PlainImages(pairs),
        BATCH,
        shuffle=True,
        num_workers=1,
        persistent_workers=True,
        worker_init_fn=lambda _: cv2.setNumThreads(0),
    )
    return lambda epoch: loader


def camox_loader(pairs: list[Pair], cache: ImageCache | None) -> Callable[[int], Iterable[Any]]:
    batches = EpochBatches(len(pairs), BATCH, seed=0)
    loader = training_loader(TrainingImages(pairs, SIZE, 0, cache), batches, num_workers=1)

    def epoch(number: int) -> Iterable[Any]:
        batches.start_at(number)
        return loader

    return epoch


def seconds(loader: Iterable[Any], count: int) -> float:
    """How long an epoch of `count` images takes."""
    started = time.perf_counter()
    assert sum(len(images) for images, _ in loader) == count
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=int, nargs="?", default=64)
    parser.add_argument("--pairs", type=int, default=10)
    asked = parser.parse_args()
    count = asked.images
    warnings.filterwarnings("ignore", message="This process .* is multi-threaded", category=DeprecationWarning)
    with tempfile.TemporaryDirectory() as temporary:
        pairs = write_photographs(Path(temporary), count)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        path = cache_path(Path(temporary), pairs, SIZE)
        started = time.perf_counter()
        build_cache(path, pairs, SIZE, lambda done, note: None)
        build = time.perf_counter() - started
        loaders = {
            "plain": plain_loader(pairs),
            "without a cache": camox_loader(pairs, None),
            "warm cache": camox_loader(pairs, ImageCache(path, pairs, SIZE)),
        }
        found = [
            {name: count / seconds(epoch(number), count) for name, epoch in loaders.items()}
            for number in range(asked.pairs + 1)
        ][1:]
    size = "×".join(map(str, PHOTOGRAPH_SIZE))
    for name in ("warm cache", "without a cache"):
        rates = [(each[name], each["plain"]) for each in found]
        report(compared(f"reading {size} JPEGs, one core, {name}", "images/s", rates, "plain loader"))
    what = f"caching {PAPERS} images, one core, {cache_bytes(PAPERS, SIZE) / 1e9:.2f} GB; from {count} of them"
    report(Row(what, "s", build * PAPERS / count))


if __name__ == "__main__":
    main()
