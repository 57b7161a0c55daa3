"""Reads COCO JSON: polygons and run-length encoded masks.

Format: https://cocodataset.org/#format-data. Crowd annotations, which mark a group of objects, are objects like others:
what they mark is not background.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from camoxpert_cli import console
from camoxpert_cli.errors import shown
from camoxpert_cli.labels.labelled import Draw, LabelledImage, LabelledObject, Labels, malformed
from camoxpert_cli.labels.read_json import is_number, is_size
from camoxpert_cli.labels.shapes import FEW_POINTS, Mask, check_runs, draw_polygon, pixels_of_runs

FORMAT = "COCO JSON"
_NO_MASK = "boxes or points without a mask"
_OTHER_SIZE = "masks of another size than their image"


def is_coco(content: Any) -> bool:
    """Return whether the content of a JSON file looks like COCO's."""
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content


def read_coco(path: Path, content: Any) -> Labels:
    """Read the content of a COCO file. Raises DataError with the entry that is malformed."""
    names: dict[Any, str] = {}
    for entry in _entries(path, content, "categories", ("id", "name")):
        names[entry["id"]] = str(entry["name"])
    images: dict[Any, dict[str, Any]] = {}
    for entry in _entries(path, content, "images", ("id", "file_name")):
        if entry["id"] in images:
            raise malformed(path, f"two images have the id {shown(entry['id'])}")
        images[entry["id"]] = entry
    sizes = {key: _size(entry) for key, entry in images.items()}
    objects: dict[Any, list[LabelledObject]] = defaultdict(list)
    lost = crowds = 0
    for entry in _entries(path, content, "annotations", ("image_id", "category_id")):
        image, number = entry["image_id"], entry["category_id"]
        if image not in images:
            lost += 1
            continue
        if number not in names:
            raise malformed(path, f"{_which(entry)} has the category_id {shown(number)}, which categories lack")
        crowds += bool(entry.get("iscrowd"))
        draw, problem = _shape(path, entry, sizes)
        objects[image].append(LabelledObject(names[number], draw, problem, number if isinstance(number, int) else None))
    notes = []
    if lost:
        notes.append(f"skipped {console.counted(lost, 'annotation')} of images that {path.name} does not list")
    if crowds:
        notes.append(f"{console.counted(crowds, 'crowd annotation')} included")
    return Labels(
        FORMAT,
        [LabelledImage((str(each["file_name"]),), tuple(objects[key]), sizes[key]) for key, each in images.items()],
        notes,
    )


def _entries(path: Path, content: dict[str, Any], name: str, needed: tuple[str, ...]) -> list[dict[str, Any]]:
    """The entries of a list, all of which have the `needed` keys, with numbers or texts."""
    entries = content.get(name, [])
    if not isinstance(entries, list):
        raise malformed(path, f"{name} is {shown(entries)}, expected a list")
    for at, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), int | str) for key in needed):
            raise malformed(path, f"{name}[{at}] is {shown(entry)}, expected an entry with {' and '.join(needed)}")
    return entries


def _which(entry: dict[str, Any]) -> str:
    return f"annotation {shown(entry.get('id', 'without id'))}"


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if is_size(height) and is_size(width) else None  # type: ignore[return-value]


def _shape(path: Path, entry: dict[str, Any], sizes: dict[Any, tuple[int, int] | None]) -> tuple[Draw | None, str]:
    """The shape of an annotation, or why it has none; an RLE gives its size to an image without one."""
    segmentation = entry.get("segmentation")
    if segmentation in (None, [], {}):
        return None, _NO_MASK
    match segmentation:
        case list() as polygons:
            # Some programs leave out the outer one of the two lists.
            several = [polygons] if not any(isinstance(each, list) for each in polygons) else polygons
            for each in several:
                if not isinstance(each, list) or len(each) % 2 or not all(map(is_number, each)):
                    raise malformed(path, f"{_which(entry)} has the polygon {shown(each)}, expected pairs of numbers")
            points = [np.array(each, np.float64).reshape(-1, 2) for each in several if len(each) >= 6]
            return (partial(_draw_polygons, polygons=points), "") if points else (None, FEW_POINTS)
        case {"size": [int(height), int(width)], "counts": list() | str() as counts} if height > 0 and width > 0:
            try:
                runs = runs_of_text(counts) if isinstance(counts, str) else _whole(counts)
                check_runs(runs, height * width)
            except ValueError as error:
                raise malformed(path, f"{_which(entry)}: {error}") from error
            sizes[entry["image_id"]] = size = sizes[entry["image_id"]] or (height, width)
            if size != (height, width):
                return None, _OTHER_SIZE
            return partial(_draw_runs, runs=np.array(runs)), ""
        case other:
            raise malformed(path, f"{_which(entry)} has the segmentation {shown(other)}, expected polygons or an RLE")


def _whole(counts: list[Any]) -> list[int]:
    if not all(isinstance(each, int) for each in counts):
        raise ValueError(f"its counts are {shown(counts)}, expected whole numbers")
    return counts


def runs_of_text(text: str) -> list[int]:
    """Return the lengths of runs from the text of a compressed RLE.

    Each character has five bits of a number and one that says whether more follow; from the fourth on, numbers are
    differences from the last but one before. As in `rleFrString` of pycocotools, which reads beyond the end of a text
    that was cut off. Raises ValueError for such a text.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"its counts contain {character!r}, which compressed counts do not")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its counts are cut off")
    return runs


def _draw_polygons(mask: Mask, polygons: list[Any]) -> None:
    for points in polygons:
        draw_polygon(mask, points)


def _draw_runs(mask: Mask, runs: Any) -> None:
    # COCO goes down the columns.
    mask.T[pixels_of_runs(runs).reshape(mask.shape[::-1])] = 255
