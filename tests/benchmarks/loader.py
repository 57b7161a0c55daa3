"""How many training pictures a second one core delivers, beside a plain loader.

    python tests/benchmarks/loader.py [PICTURES]

Both read generated JPEGs of 737×964 with PNG masks at 320 pixels in one worker on one core, flip, turn and recolour
with the same probabilities, collate batches of 16 and hand them to the parent process. Neither normalises. The plain
loader decodes with OpenCV, resizes and augments with albumentations, and puts channels first. The first epoch, in which
workers start and camox without a cache reads the masks, which it then keeps in memory, is not counted.
"""

from __future__ import annotations

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

from camoxpert_cli.data.cache import PictureCache, build_cache, cache_bytes, cache_path
from camoxpert_cli.data.dataset import TrainingPictures
from camoxpert_cli.data.loader import training_loader
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.sampling import EpochBatches
from camoxpert_cli.data.synthetic import generate_picture

HEIGHT, WIDTH, SIZE, BATCH = 737, 964, 320, 16
PAPERS = 4040  # training pictures of COD10K and CAMO together
ROUNDS = 5


class PlainPictures(Dataset[tuple[Tensor, Tensor]]):
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
        picture, mask = cv2.imread(str(pair.image)), cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        assert mask is not None
        done = self.transform(image=cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), mask=(mask > 127).astype(np.uint8))
        image = np.ascontiguousarray(done["image"].transpose(2, 0, 1))
        return torch.from_numpy(image), torch.from_numpy(np.ascontiguousarray(done["mask"]))[None]


def write_pictures(folder: Path, count: int) -> list[Pair]:
    pairs = []
    for index in range(count):
        image, mask = generate_picture(0, index, "train", WIDTH)
        pair = Pair(f"{index}", folder / f"{index}.jpg", folder / f"{index}.png")
        cv2.imwrite(str(pair.image), image[:HEIGHT, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(pair.mask), mask[:HEIGHT])
        pairs.append(pair)
    return pairs


def plain_loader(pairs: list[Pair]) -> Callable[[int], Iterable[Any]]:
    loader = DataLoader(
        PlainPictures(pairs),
        BATCH,
        shuffle=True,
        num_workers=1,
        persistent_workers=True,
        worker_init_fn=lambda _: cv2.setNumThreads(0),
    )
    return lambda epoch: loader


def camox_loader(pairs: list[Pair], cache: PictureCache | None) -> Callable[[int], Iterable[Any]]:
    batches = EpochBatches(len(pairs), BATCH, seed=0)
    loader = training_loader(TrainingPictures(pairs, SIZE, 0, cache), batches, num_workers=1)

    def epoch(number: int) -> Iterable[Any]:
        batches.start_at(number)
        return loader

    return epoch


def rate(epoch: Callable[[int], Iterable[Any]], count: int) -> float:
    """Pictures a second in the fastest of some epochs, after one that starts the worker."""
    seconds = []
    for number in range(ROUNDS + 1):
        started = time.perf_counter()
        assert sum(len(images) for images, _ in epoch(number)) == count
        seconds.append(time.perf_counter() - started)
    return count / min(seconds[1:])


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    warnings.filterwarnings("ignore", message="This process .* is multi-threaded", category=DeprecationWarning)
    with tempfile.TemporaryDirectory() as temporary:
        pairs = write_pictures(Path(temporary), count)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        path = cache_path(Path(temporary), pairs, SIZE)
        started = time.perf_counter()
        build_cache(path, pairs, SIZE, lambda done, note: None)
        build = time.perf_counter() - started
        plain = rate(plain_loader(pairs), count)
        direct = rate(camox_loader(pairs, None), count)
        cached = rate(camox_loader(pairs, PictureCache(path, pairs, SIZE)), count)
    print(f"plain loader         {plain:7.0f} pictures/s")
    print(f"camox without cache  {direct:7.0f} pictures/s   {direct / plain:5.2f} x")
    print(f"camox, warm cache    {cached:7.0f} pictures/s   {cached / plain:5.2f} x")
    print(
        f"cache of {PAPERS} pictures: {build * PAPERS / count:.0f} s on one core, "
        f"{cache_bytes(PAPERS, SIZE) / 1e9:.2f} GB (extrapolated from {count})"
    )


if __name__ == "__main__":
    main()
