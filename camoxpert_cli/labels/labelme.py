"""Reads labelme JSON: a file per image, with polygons, rectangles, circles and masks.

Format: the `save` and `shape_to_mask` functions of https://github.com/wkentaro/labelme. The file may contain the image.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camoxpert_cli import console
from camoxpert_cli.errors import DataError, shown
from camoxpert_cli.labels.labelled import Draw, LabelledImage, LabelledObject, Labels, malformed
from camoxpert_cli.labels.read_json import is_number, is_size, read_json
from camoxpert_cli.labels.shapes import FEW_POINTS, draw_box, draw_ellipse, draw_pixels, draw_polygon

FORMAT = "labelme JSON"


def is_labelme(content: Any) -> bool:
    """Return whether the content of a JSON file looks like labelme's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(folder: Path, files: Sequence[Path]) -> Labels:
    """Read the labelme files among the JSON `files` in a folder. Raises DataError with the shape that is malformed."""
    images, others = [], []
    for path in files:
        content = read_json(path)
        if is_labelme(content):
            images.append(_image(path, path.relative_to(folder), content))
        else:
            others.append(path.name)
    notes = [f"skipped {console.counted(len(others), 'other .json file')}: {', '.join(others[:3])}"] if others else []
    return Labels(FORMAT, images, notes)


def _image(path: Path, below: Path, content: dict[str, Any]) -> LabelledImage:
    objects = []
    for at, shape in enumerate(content["shapes"]):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise malformed(path, f"shapes[{at}] is {shown(shape)}, expected a shape with a label")
        try:
            draw, problem = _shape(shape)
        except ValueError as error:
            raise malformed(path, f"shapes[{at}] ({shape['label']}): {error}") from error
        objects.append(LabelledObject(shape["label"], draw, problem))
    height, width, name = (content.get(key) for key in ("imageHeight", "imageWidth", "imagePath"))
    data = content.get("imageData")
    return LabelledImage(
        # The name in the file is relative to the file, and stays as it was where both are renamed.
        (*([f"{below.parent}/{name}"] if isinstance(name, str) and name else []), str(below)),
        tuple(objects),
        (height, width) if is_size(height) and is_size(width) else None,  # type: ignore[arg-type]
        partial(_decoded, path) if isinstance(data, str) and data else None,
    )


def _decoded(path: Path) -> bytes:
    """The image that a file contains, read when it is needed: as large as the image."""
    try:
        return base64.b64decode(read_json(path)["imageData"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{path}: imageData is damaged", "export the labels again") from error


def _shape(shape: dict[str, Any]) -> tuple[Draw | None, str]:
    """What draws a shape, or why nothing does. Raises ValueError for a malformed one."""
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    if not isinstance(points, list) or not all(
        isinstance(each, list) and len(each) == 2 and all(map(is_number, each)) for each in points
    ):
        raise ValueError(f"its points are {shown(points)}, expected pairs of numbers")
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        return None, f"shapes of type {kind}"
    if kind == "polygon" and len(points) < 3:
        return None, FEW_POINTS
    if kind == "polygon":
        return partial(draw_polygon, points=np.array(points, np.float64)), ""
    if len(points) < 2:
        raise ValueError(f"a {kind} with {console.counted(len(points), 'point')}, expected 2")
    (x, y), (other_x, other_y) = points[:2] if len(points) == 2 else _corners(points)
    if kind == "circle":
        radius = math.hypot(other_x - x, other_y - y)
        return partial(draw_ellipse, center=(x, y), radii=(radius, radius)), ""
    if kind == "rectangle":
        return partial(draw_box, corners=(x, y, other_x, other_y)), ""
    return partial(draw_pixels, pixels=_pixels(shape.get("mask")), left=round(x), top=round(y)), ""


def _corners(points: list[list[float]]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two opposite corners of a rectangle that is stored with all four."""
    xs, ys = zip(*points, strict=True)
    return (min(xs), min(ys)), (max(xs), max(ys))


def _pixels(text: Any) -> Any:
    """The pixels, bool (h, w), of a mask that is stored as a PNG in base64."""
    try:
        content = base64.b64decode(text, validate=True)
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except (binascii.Error, TypeError, ValueError, cv2.error):
        pixels = None
    if pixels is None:
        raise ValueError("its mask cannot be decoded as a PNG in base64")
    return pixels > 0
