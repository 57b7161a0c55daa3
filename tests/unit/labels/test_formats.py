"""Shapes that are written in each format and imported again are what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.reading import read_pair
from camoxpert_cli.labels.import_labels import import_labels
from tests.helpers.image_files import palette_png, write
from tests.helpers.label_files import (
    Mask,
    blob,
    coco_runs,
    coco_text,
    cvat_mask,
    imported_masks,
    iou,
    write_coco,
    write_cutouts,
    write_cvat,
    write_images,
    write_index_masks,
    write_labelme,
    write_yolo,
)


def write_palette(folder: Path, masks: dict[str, Mask]) -> Path:
    colours = np.array([[9, 9, 9], [0, 0, 0], [200, 0, 0]], np.uint8)
    folder.mkdir()
    for name, mask in masks.items():
        (folder / name).with_suffix(".png").write_bytes(palette_png(mask // 255 * 2, colours))
    return folder


WRITERS: dict[str, tuple[str, Callable[[Path, dict[str, Mask]], Path]]] = {
    "COCO polygons": ("COCO JSON", lambda folder, masks: write_coco(folder / "a.json", masks)),
    "COCO RLE": ("COCO JSON", lambda folder, masks: write_coco(folder / "a.json", masks, coco_runs)),
    "COCO compressed RLE": ("COCO JSON", lambda folder, masks: write_coco(folder / "a.json", masks, coco_text)),
    "YOLO": ("YOLO segmentation", write_yolo),
    "labelme polygons": ("labelme JSON", write_labelme),
    "labelme masks": ("labelme JSON", lambda folder, masks: write_labelme(folder, masks, "mask")),
    "CVAT polygons": ("CVAT XML", lambda folder, masks: write_cvat(folder / "a.xml", masks)),
    "CVAT masks": ("CVAT XML", lambda folder, masks: write_cvat(folder / "a.xml", masks, cvat_mask)),
    "alpha": ("images with an alpha channel", write_cutouts),
    "index masks": ("index masks", write_index_masks),
    "index masks with a palette": ("index masks", write_palette),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_shapes_are_restored(tmp_path: Path, kind: str) -> None:
    """Of any form and size: each image has a mask of its size of 0 and 255, and both can be trained on."""
    masks = {f"{at}.png": blob(at, 100 + 7 * at, 130 + at) for at in range(4)}
    images = write_images(tmp_path / "images", masks)
    format_name, writer = WRITERS[kind]
    source = writer(tmp_path / "labels", masks)

    done = import_labels(source, None if kind == "alpha" else images, tmp_path / "DATA")

    assert done.format == format_name
    assert done.skipped == {}
    imported = imported_masks(tmp_path / "DATA")
    assert imported.keys() == masks.keys()
    for name, mask in masks.items():
        assert np.unique(imported[name]).tolist() == [0, 255]
        assert iou(imported[name], mask) == 1
    pairs = find_data([tmp_path / "DATA"]).train
    assert len(pairs) == 4
    for pair in pairs:
        image, mask = read_pair(pair.image, pair.mask)
        assert np.array_equal(mask, masks[pair.image.name] > 0)
        assert np.array_equal(image, read_pair(images / pair.image.name, pair.mask)[0])


def test_an_object_at_the_edge(tmp_path: Path) -> None:
    """The first and last rows and columns are not lost in any format."""
    mask = np.zeros((40, 50), np.uint8)
    mask[:, 30:] = 255
    images = write_images(tmp_path / "images", {"a.png": mask})
    for kind, (_, writer) in WRITERS.items():
        source = writer(tmp_path / kind, {"a.png": mask})
        out = tmp_path / f"{kind} DATA"
        import_labels(source, None if kind == "alpha" else images, out)

        assert np.array_equal(imported_masks(out)["a.png"], mask), kind


def test_masks_beside_their_images(tmp_path: Path) -> None:
    """Index masks in a folder below that of the images are not taken for images."""
    mask = blob(1)
    write_images(tmp_path, {"a.png": mask})
    write(tmp_path / "masks" / "a.png", mask // 255)

    import_labels(tmp_path / "masks", tmp_path, tmp_path / "DATA")

    assert np.array_equal(imported_masks(tmp_path / "DATA")["a.png"], mask)
