"""Writes labels in each format that `camox import-labels` reads, from masks, and what it imported."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.helpers.image_files import noise, write

Mask = NDArray[np.uint8]


def blob(seed: int, height: int = 120, width: int = 160) -> Mask:
    """A mask (H, W) of 0 and 255 with one connected object of any form, without holes."""
    draw = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(draw.normal(size=(height, width)), (0, 0), 14)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((soft > 0).astype(np.uint8), connectivity=8)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    outlines, _ = cv2.findContours((labels == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, outlines, 255)
    return mask


def outlines(mask: Mask) -> list[list[tuple[float, float]]]:
    """The outermost pixels of each part of a mask, as (x, y)."""
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [[(float(x), float(y)) for x, y in each[:, 0]] for each in found if len(each) > 2]


def runs(mask: Mask) -> list[int]:
    """The lengths of the runs of a mask's pixels, row after row, of background first."""
    flat = np.concatenate([[False], mask.ravel() > 0])
    ends = np.flatnonzero(np.diff(flat))
    return [int(each) for each in np.diff(np.concatenate([[0], ends, [mask.size]]))]


def write_images(folder: Path, masks: dict[str, Mask]) -> Path:
    """An image of noise for each mask, by file name."""
    for seed, (name, mask) in enumerate(masks.items()):
        write(folder / name, noise(seed, *mask.shape))
    return folder


def coco_of(masks: dict[str, Mask], segmentation: Any) -> dict[str, Any]:
    """The content of a COCO file with an object of class fox, id 7, an image; `segmentation` makes it of a mask."""
    images = [
        {"id": at, "file_name": name, "height": mask.shape[0], "width": mask.shape[1]}
        for at, (name, mask) in enumerate(masks.items())
    ]
    annotations = [
        {"id": at + 100, "image_id": at, "category_id": 7, "segmentation": segmentation(mask), "iscrowd": 0}
        for at, mask in enumerate(masks.values())
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "fox"}]}


def coco_polygons(mask: Mask) -> Any:
    return [[each for point in outline for each in point] for outline in outlines(mask)]


def coco_runs(mask: Mask) -> Any:
    return {"size": [*mask.shape], "counts": runs(mask.T)}


def coco_text(mask: Mask) -> Any:
    """As pycocotools writes it."""
    from pycocotools.mask import encode

    encoded = encode(np.asfortranarray(mask // 255))
    return {"size": [int(each) for each in encoded["size"]], "counts": encoded["counts"].decode()}


def write_coco(path: Path, masks: dict[str, Mask], segmentation: Any = coco_polygons) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco_of(masks, segmentation)))
    return path


def write_yolo(folder: Path, masks: dict[str, Mask]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("owl\nfox\n")
    for name, mask in masks.items():
        height, width = mask.shape
        lines = [
            " ".join(["1", *(f"{x / width:.6f} {y / height:.6f}" for x, y in outline)]) for outline in outlines(mask)
        ]
        path = (folder / name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    return folder


def labelme_of(mask: Mask, name: str, shapes: list[dict[str, Any]]) -> dict[str, Any]:
    height, width = mask.shape
    return {"imagePath": name, "imageHeight": height, "imageWidth": width, "imageData": None, "shapes": shapes}


def write_labelme(folder: Path, masks: dict[str, Mask], kind: str = "polygon") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        shapes: list[dict[str, Any]] = [
            {"label": "fox", "shape_type": "polygon", "points": outline} for outline in outlines(mask)
        ]
        if kind == "mask":
            x, y, width, height = cv2.boundingRect(mask)
            content = cv2.imencode(".png", mask[y : y + height, x : x + width])[1].tobytes()
            corners = [[x, y], [x + width - 1, y + height - 1]]
            text = base64.b64encode(content).decode()
            shapes = [{"label": "fox", "shape_type": "mask", "points": corners, "mask": text}]
        (folder / name).with_suffix(".json").write_text(json.dumps(labelme_of(mask, name, shapes)))
    return folder


def cvat_of(masks: dict[str, Mask], shapes: Any) -> str:
    """The text of a CVAT file; `shapes` makes the elements of a mask."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "  <version>1.1</version>"]
    for at, (name, mask) in enumerate(masks.items()):
        height, width = mask.shape
        lines.append(f'  <image id="{at}" name={quoteattr(name)} width="{width}" height="{height}">')
        lines += shapes(mask)
        lines.append("  </image>")
    return "\n".join([*lines, "</annotations>"]) + "\n"


def cvat_polygons(mask: Mask) -> list[str]:
    points = [";".join(f"{x:.2f},{y:.2f}" for x, y in outline) for outline in outlines(mask)]
    return [f'    <polygon label="fox" points="{each}" z_order="0">\n    </polygon>' for each in points]


def cvat_mask(mask: Mask) -> list[str]:
    x, y, width, height = cv2.boundingRect(mask)
    text = ", ".join(map(str, runs(mask[y : y + height, x : x + width])))
    return [f'    <mask label="fox" rle="{text}" left="{x}" top="{y}" width="{width}" height="{height}"/>']


def write_cvat(path: Path, masks: dict[str, Mask], shapes: Any = cvat_polygons) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(cvat_of(masks, shapes))
    return path


def write_cutouts(folder: Path, masks: dict[str, Mask]) -> Path:
    """Images whose transparency is the mask; the colors behind it are kept."""
    for seed, (name, mask) in enumerate(masks.items()):
        write((folder / name).with_suffix(".png"), np.dstack([noise(seed, *mask.shape), mask]))
    return folder


def write_index_masks(folder: Path, masks: dict[str, Mask], level: int = 1) -> Path:
    for name, mask in masks.items():
        write((folder / name).with_suffix(".png"), (mask // 255 * level).astype(np.uint8))
    return folder


def imported_masks(data: Path) -> dict[str, Mask]:
    """The masks that were written, by file name."""
    paths = sorted((data / "TrainDataset" / "GT").iterdir())
    return {path.name: np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.uint8) for path in paths}


def iou(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(((first > 0) & (second > 0)).sum() / ((first > 0) | (second > 0)).sum())
