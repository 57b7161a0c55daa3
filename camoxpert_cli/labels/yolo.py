"""Reads YOLO segmentation labels: a text file per image, a line per object, `class x1 y1 x2 y2 ...` from 0 to 1.

Format: https://docs.ultralytics.com/datasets/segment. A file without lines labels an image without an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from camoxpert_cli.errors import shown
from camoxpert_cli.labels.labelled import LabelledImage, LabelledObject, Labels, Names, malformed
from camoxpert_cli.labels.read_json import read_text
from camoxpert_cli.labels.shapes import Mask, Points, draw_polygon

FORMAT = "YOLO segmentation"
BOX = "detection boxes (5 numbers), which are no masks"
_NAME_FILES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
# Text files that come with a dataset: lists of classes and images, and what people wrote.
_OTHER_FILES = {"classes", "labels", "names", "train", "val", "valid", "test", "notes", "license", "requirements"}
# Outlines may lead a little out of the image; pixel coordinates lead much further.
_LOWEST, _HIGHEST = -1, 2


def is_yolo(path: Path) -> bool:
    """Return whether the first line of a text file is that of an object."""
    words = next((line.split() for line in read_text(path).splitlines() if line.strip()), [])
    return len(words) >= 5 and all(map(_is_number, words))


def is_other_text(path: Path) -> bool:
    """Return whether a text file comes with a dataset but labels no image."""
    stem = path.stem.lower()
    return (stem in _OTHER_FILES or stem.startswith("readme")) and not is_yolo(path)


def read_yolo(folder: Path, files: Sequence[Path]) -> Labels:
    """Read the label files in a folder and the names of classes, from `data.yaml` or `classes.txt` there or above.

    Raises DataError for a line that is malformed.
    """
    names = _read_names(folder)
    images = []
    for path in files:
        objects = []
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if line.strip():
                try:
                    objects.append(parse_line(line, names))
                except ValueError as error:
                    raise malformed(path, str(error), line=number) from error
        images.append(LabelledImage((path.relative_to(folder).as_posix(),), tuple(objects)))
    return Labels(FORMAT, images)


def parse_line(line: str, names: Names) -> LabelledObject:
    """Return the object that a line describes. Raises ValueError for a malformed line."""
    words = line.split()
    if not words[0].isdecimal() or len(words[0]) > 9:
        raise ValueError(f"the class is {shown(words[0])}, expected a number such as 0")
    number = int(words[0])
    name = names.get(number, str(number))
    for word in words[1:]:
        if not _is_number(word):
            raise ValueError(f"{shown(word)} is not a number")
        if not _LOWEST <= float(word) <= _HIGHEST:
            raise ValueError(f"the coordinate {shown(word)} is not between 0 and 1, as shares of the image's sides are")
    count = len(words) - 1
    if count in (4, 5):  # the fifth is how certain a prediction is
        return LabelledObject(name, None, BOX, number)
    if count % 2 or count < 6:
        raise ValueError(f"{count} numbers follow the class, expected pairs of coordinates of at least 3 points")
    points = np.array([float(word) for word in words[1:]]).reshape(-1, 2)
    return LabelledObject(name, partial(_draw, shares=points), number=number)


def _draw(mask: Mask, shares: Points) -> None:
    draw_polygon(mask, shares * mask.shape[::-1])


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _read_names(folder: Path) -> Names:
    """The names of classes from the nearest file that has them: in the folder, or up to two levels above."""
    whole = folder.absolute()
    for path in (each / name for each in (whole, *whole.parents[:2]) for name in _NAME_FILES):
        if path.is_file():
            text = read_text(path)
            if path.suffix != ".yaml":
                return {number: line.strip() for number, line in enumerate(text.splitlines()) if line.strip()}
            try:
                content = yaml.safe_load(text)
            except yaml.YAMLError as error:
                mark = getattr(error, "problem_mark", None)
                raise malformed(path, "not YAML", line=mark.line + 1 if mark else None) from error
            match content.get("names") if isinstance(content, dict) else None:
                case list() as listed:
                    return {number: str(name) for number, name in enumerate(listed)}
                case dict() as listed:
                    return {number: str(name) for number, name in listed.items() if isinstance(number, int)}
    return {}
