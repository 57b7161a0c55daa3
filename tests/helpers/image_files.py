"""Writes the images, masks and folders that the tests of `camoxpert_cli.data` read."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_cli.data.cache import ImageCache, build_cache, cache_path
from camoxpert_cli.data.pairs import Pair
from tests.helpers.places import SHARED_DATA

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


def jpeg(pixels: NDArray[np.uint8], *options: int) -> bytes:
    """The content of a JPEG of BGR or grey pixels."""
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def palette_png(indices: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """A PNG of mode P: indices (H, W) into colours (N, 3) RGB, as tools write class numbers."""
    height, width = indices.shape
    rows = b"".join(b"\0" + row.tobytes() for row in indices)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 3, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"PLTE", colours.tobytes()), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = (
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_exif(content: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """A JPEG with an EXIF segment that asks for a turn; `thumbnail` follows within the segment."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + bytes([0, orientation]) + b"\x00\x00"
    body = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + entry + bytes(4) + thumbnail
    return content[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + content[2:]


def noise(seed: int, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """An image (H, W, 3) unlike that of any other seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) of smooth colours under weak noise, as photographs are, unlike that of any other seed."""
    draw = np.random.default_rng(seed)
    colours = draw.integers(40, 216, (6, 7, 3)).astype(np.float32)
    smooth = cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(smooth + draw.normal(0, 6, smooth.shape), 0, 255), dtype=np.uint8)


def square_mask(seed: int, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """A mask (H, W) of 0 and 255 with one rectangle in a place of its own."""
    mask = np.zeros((height, width), np.uint8)
    top, left = (int(each) for each in np.random.default_rng(seed).integers(0, (height // 2, width // 2)))
    mask[top : top + height // 3, left : left + width // 3] = 255
    return mask


def write_pairs(folder: Path, count: int) -> tuple[Pair, ...]:
    """Pairs 000, 001, ... of images (PNG, so that no pixel is lost) and masks; their heights differ."""
    pairs = []
    for index in range(count):
        name, height = f"{index:03d}", 24 + index % 3
        image = write(folder / "Imgs" / f"{name}.png", noise(index, height))
        mask = write(folder / "GT" / f"{name}.png", square_mask(index, height))
        pairs.append(Pair(name, image, mask))
    return tuple(pairs)


def build(folder: Path, pairs: Sequence[Pair], img_size: int) -> ImageCache:
    """The cache of these pairs in a folder, built where it is not there yet."""
    path = cache_path(folder, pairs, img_size)
    build_cache(path, pairs, img_size, lambda count, note: None)
    return ImageCache(path, pairs, img_size)
