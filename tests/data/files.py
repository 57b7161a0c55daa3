"""Writes the pictures, masks and folders that the tests of `camoxpert_cli.data` read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_cli.data.pairs import Pair

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="../shared/data is not here")


def touch(folder: Path, names: Iterable[str]) -> None:
    """Empty files of these names, for tests that look at names only."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def touch_pairs(root: Path, images: str, masks: str, stems: Iterable[str] = ("a", "b")) -> None:
    stems = list(stems)
    touch(root / images, [f"{stem}.jpg" for stem in stems])
    touch(root / masks, [f"{stem}.png" for stem in stems])


def write(path: Path, pixels: NDArray[Any]) -> Path:
    """Writes RGB, RGBA or grey pixels in the format of the extension."""
    swapped = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    content = cv2.imencode(path.suffix, np.ascontiguousarray(swapped))[1].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def noise(seed: int, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """A picture (H, W, 3) unlike that of any other seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def square_mask(seed: int, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """A mask (H, W) of 0 and 255 with one rectangle in a place of its own."""
    mask = np.zeros((height, width), np.uint8)
    top, left = (int(each) for each in np.random.default_rng(seed).integers(0, (height // 2, width // 2)))
    mask[top : top + height // 3, left : left + width // 3] = 255
    return mask


def write_pairs(folder: Path, count: int) -> tuple[Pair, ...]:
    """Pairs 000, 001, ... of pictures (PNG, so that no pixel is lost) and masks; their heights differ."""
    pairs = []
    for index in range(count):
        name, height = f"{index:03d}", 24 + index % 3
        image = write(folder / "Imgs" / f"{name}.png", noise(index, height))
        mask = write(folder / "GT" / f"{name}.png", square_mask(index, height))
        pairs.append(Pair(name, image, mask))
    return tuple(pairs)
