"""Reads masks whose pixels are numbers of classes, 0 for the background, as in VOC and Cityscapes.

They are images of a single channel, or of a palette, whose colors do not matter.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camoxpert_cli import console
from camoxpert_cli.data.levels import IGNORED
from camoxpert_cli.data.reading import MOST_MASK_PIXELS, decode, read_bytes
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.errors import DataError
from camoxpert_cli.labels.labelled import LabelledImage, LabelledObject, Labels
from camoxpert_cli.labels.shapes import Mask

FORMAT = "index masks"
_PALETTE = 3  # color type in the header of a PNG


def read_indices(path: Path) -> NDArray[np.integer] | None:
    """Read the number of each pixel, (H, W); None for an image in color. Raises DataError."""
    content = read_bytes(path)
    pixels = decode(path, content, cv2.IMREAD_UNCHANGED, MOST_MASK_PIXELS)
    if content.startswith(b"\x89PNG") and content[25] == _PALETTE:
        with Image.open(io.BytesIO(content)) as image:  # OpenCV replaces indices by colors
            return np.asarray(image)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return pixels if pixels.ndim == 2 and np.issubdtype(pixels.dtype, np.integer) else None


def read_index_masks(folder: Path, files: Sequence[Path]) -> Labels:
    """Read index masks; each level above 0 is a class. Raises DataError for a mask in color, or if all are binary."""
    images, levels, ignored = [], set[int](), 0
    for path, (size, found) in zip(files, in_threads(_look_at, files), strict=True):
        levels |= set(found)
        ignored += IGNORED in found
        shapes = [LabelledObject(str(each), partial(_draw, path=path, level=each), number=each) for each in found]
        images.append(LabelledImage((path.relative_to(folder).as_posix(),), tuple(shapes), size))
    if levels <= {IGNORED}:
        raise DataError(
            f"the masks in {folder} contain only 0 and 255, which is what camox trains on",
            f"camox train --images DIR --masks {folder}",
        )
    notes = []
    if ignored:
        notes.append(
            f"{console.counted(ignored, 'mask contains', 'masks contain')} 255, which often marks pixels to ignore: "
            "background here unless chosen with --class 255"
        )
    return Labels(FORMAT, images, notes)


def _look_at(path: Path) -> tuple[tuple[int, int], list[int]]:
    indices = read_indices(path)
    if indices is None:
        raise DataError(
            f"the mask {path} is in color, expected numbers of classes",
            "export the masks with a palette or as numbers of classes",
        )
    return (indices.shape[0], indices.shape[1]), [int(each) for each in np.unique(indices) if each > 0]


def _draw(mask: Mask, path: Path, level: int) -> None:
    mask[read_indices(path) == level] = 255
