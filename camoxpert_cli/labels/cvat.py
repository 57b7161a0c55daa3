"""Reads CVAT's XML for images 1.1: polygons, boxes, ellipses and masks.

Format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat.
"""

from __future__ import annotations

import xml.sax
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl

import numpy as np

from camoxpert_cli.errors import DataError, shown
from camoxpert_cli.labels.labelled import Draw, LabelledImage, LabelledObject, Labels, malformed
from camoxpert_cli.labels.read_json import is_number, read_text
from camoxpert_cli.labels.shapes import (
    FEW_POINTS,
    Mask,
    check_runs,
    draw_box,
    draw_ellipse,
    draw_pixels,
    draw_polygon,
    pixels_of_runs,
)

FORMAT = "CVAT XML"
_EXPORT = "in CVAT, export the task as CVAT for images 1.1"
_AREAS = ("polygon", "box", "ellipse", "mask")
_NO_AREAS = ("polyline", "points", "cuboid", "skeleton")


class _OtherFormat(Exception):
    """The file is XML of something else; the message says of what."""


class _Reader(ContentHandler):
    """Collects the images of a file; raises ValueError for what is malformed."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[LabelledImage] = []
        self.depth = 0
        self.image: dict[str, Any] | None = None
        self.line = 1
        self._locator: Any = None

    def setDocumentLocator(self, locator: Any) -> None:  # noqa: N802
        self._locator = locator

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802
        self.line = self._locator.getLineNumber()
        self.depth += 1
        given = dict(attrs.items())
        if self.depth == 1 and name != "annotations":
            voc = name == "annotation"
            raise _OtherFormat("an annotation of Pascal VOC, which has boxes and no masks" if voc else f"XML of {name}")
        if self.depth == 2 and name == "track":
            raise _OtherFormat("CVAT's format for videos")
        if self.depth == 2 and name == "image":
            height, width = (_whole(given, each) for each in ("height", "width"))
            self.image = {"names": (_text(given, "name"),), "size": (height, width), "objects": ()}
        elif self.depth == 3 and self.image is not None and name in (*_AREAS, *_NO_AREAS):
            draw, problem = _shape(name, given)
            self.image["objects"] += (LabelledObject(_text(given, "label"), draw, problem),)

    def endElement(self, name: str) -> None:  # noqa: N802
        self.depth -= 1
        if self.depth == 1 and self.image is not None:
            self.images.append(LabelledImage(**self.image))
            self.image = None


def read_cvat(path: Path) -> Labels:
    """Read a CVAT file. Raises DataError with the line that is malformed, or with what other XML it is."""
    reader = _Reader()
    try:
        xml.sax.parseString(read_text(path), reader)
    except _OtherFormat as error:
        raise DataError(f"{path} is {error}, expected CVAT for images 1.1", _EXPORT) from error
    except xml.sax.SAXParseException as error:
        raise malformed(path, f"not XML: {error.getMessage()}", line=error.getLineNumber()) from error
    except ValueError as error:
        raise malformed(path, str(error), line=reader.line) from error
    return Labels(FORMAT, reader.images)


def _shape(kind: str, given: dict[str, str]) -> tuple[Draw | None, str]:
    if kind in _NO_AREAS:
        return None, f"shapes of type {kind}"
    if kind == "mask":
        column, row, width, height = (_whole(given, key) for key in ("left", "top", "width", "height"))
        runs = parse_runs(_text(given, "rle"))
        check_runs(runs, width * height)
        return partial(_draw_runs, runs=np.array(runs), box=(column, row, width, height)), ""
    if kind == "polygon":
        points = parse_points(_text(given, "points"))
        return (partial(draw_polygon, points=np.array(points)), "") if len(points) > 2 else (None, FEW_POINTS)
    degrees = _number(given, "rotation") if "rotation" in given else 0.0
    if kind == "box":
        left, top, right, bottom = (_number(given, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        return partial(draw_box, corners=(left, top, right, bottom), degrees=degrees), ""
    x, y, radius_x, radius_y = (_number(given, key) for key in ("cx", "cy", "rx", "ry"))
    return partial(draw_ellipse, center=(x, y), radii=(abs(radius_x), abs(radius_y)), degrees=degrees), ""


def parse_points(text: str) -> list[tuple[float, float]]:
    """Return the points of `x,y;x,y`. Raises ValueError for anything else."""
    points = []
    for pair in text.split(";"):
        words = pair.split(",")
        if len(words) != 2:
            raise ValueError(f"{shown(pair)} is not a point, expected x,y")
        points.append((_parsed(words[0]), _parsed(words[1])))
    return points


def parse_runs(text: str) -> list[int]:
    """Return the lengths of runs in `3, 5, 7`, of background first. Raises ValueError for anything else."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not word.isdecimal() or len(word) > 9:
            raise ValueError(f"the rle contains {shown(word)}, expected whole numbers")
    return [int(word) for word in words]


def _draw_runs(mask: Mask, runs: Any, box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    draw_pixels(mask, pixels_of_runs(runs).reshape(height, width), left, top)


def _text(given: dict[str, str], key: str) -> str:
    if key not in given:
        raise ValueError(f"the attribute {key} is missing")
    return given[key]


def _number(given: dict[str, str], key: str) -> float:
    return _parsed(_text(given, key))


def _whole(given: dict[str, str], key: str) -> int:
    """A number of pixels."""
    value = _number(given, key)
    if value < 0 or value != int(value):
        raise ValueError(f"the {key} is {shown(given[key])}, expected a whole number")
    return int(value)


def _parsed(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not is_number(value):
        raise ValueError(f"{shown(word)} is not a number that can be a coordinate")
    return value
