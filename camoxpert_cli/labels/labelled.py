"""What every label format is read as: images and the objects in them, which can be drawn into a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.errors import DataError

# Sets the pixels of an object to 255 in a mask, uint8 (H, W).
Draw: TypeAlias = Callable[[NDArray[np.uint8]], None]
# Names of classes by number, or what a file says instead.
Names: TypeAlias = dict[int, str]


@dataclass(frozen=True)
class LabelledObject:
    """An object of a class, by name and, in formats that number classes, by number.

    `draw` is None for what is no area, such as a point; `problem` then says what it is, in plural.
    """

    name: str
    draw: Draw | None = None
    problem: str = ""
    number: int | None = None


@dataclass(frozen=True)
class LabelledImage:
    """The objects of an image.

    `names` are paths of the image as the labels have them, the most certain first, or that of the file with the labels.
    `size` is the height and width in pixels for which the labels were drawn, None if they fit any. `content` returns
    the image's file where the labels contain it.
    """

    names: tuple[str, ...]
    objects: tuple[LabelledObject, ...]
    size: tuple[int, int] | None = None
    content: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Labels:
    """All labels of a source, the name of its format, and what the user should know about them."""

    format: str
    images: list[LabelledImage]
    notes: list[str] = field(default_factory=list)


def malformed(path: Path, message: str, *, line: int | None = None) -> DataError:
    """Return the error for a label file that cannot be read."""
    where = f"{path}, line {line}" if line else f"{path}"
    return DataError(f"{where}: {message}", "fix or remove it, or export the labels again")
