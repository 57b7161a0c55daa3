"""Reads images whose transparency marks the object: image and mask in one file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli import console
from camoxpert_cli.data.levels import OBJECT, eight_bits
from camoxpert_cli.data.reading import decode, read_bytes
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.data.writing import encoded
from camoxpert_cli.labels.labelled import LabelledImage, LabelledObject, Labels
from camoxpert_cli.labels.shapes import Mask

FORMAT = "images with an alpha channel"
NAME = "object"
_OPAQUE = "images without transparency"


def read_rgba(path: Path) -> NDArray[np.uint8] | None:
    """Read an image as stored, uint8 (H, W, 4) BGRA; None if no pixel is transparent. Raises DataError."""
    pixels = decode(path, read_bytes(path), cv2.IMREAD_UNCHANGED)
    if pixels.ndim < 3 or pixels.shape[2] < 4:
        return None
    pixels = eight_bits(pixels)
    return pixels if pixels[..., 3].min() < 255 else None


def read_alpha(folder: Path, files: Sequence[Path]) -> Labels:
    """Read images with an alpha channel: above 127 it is the object, and the color channels are the image.

    Raises DataError for an image that cannot be read.
    """
    images, removed = [], 0
    for path, (has_alpha, is_cut_out) in zip(files, in_threads(_look_at, files), strict=True):
        shape = LabelledObject(NAME, partial(_draw, path=path)) if has_alpha else LabelledObject(NAME, None, _OPAQUE)
        images.append(LabelledImage((path.relative_to(folder).as_posix(),), (shape,), None, partial(_opaque, path)))
        removed += is_cut_out
    notes = []
    if removed:
        notes.append(
            f"in {console.counted(removed, 'image')} all transparent pixels have the same color: the background was "
            "removed, and the network would learn to find that color instead of the object"
        )
    return Labels(FORMAT, images, notes)


def _look_at(path: Path) -> tuple[bool, bool]:
    """Whether an image has transparent pixels, and whether these have a single color."""
    pixels = read_rgba(path)
    if pixels is None:
        return False, False
    behind = pixels[pixels[..., 3] == 0][:, :3]
    return True, len(behind) > 0 and bool((behind == behind[0]).all())


def _opaque(path: Path) -> bytes:
    """The color channels as a PNG: not rotated by EXIF, because the alpha channel is not either."""
    pixels = read_rgba(path)
    return b"" if pixels is None else encoded(".png", np.ascontiguousarray(pixels[..., :3]))


def _draw(mask: Mask, path: Path) -> None:
    pixels: Any = read_rgba(path)
    mask[pixels[..., 3] > OBJECT] = 255
