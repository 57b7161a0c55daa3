"""Which format a file or folder is taken for, and what is said of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camoxpert_cli.errors import DataError
from camoxpert_cli.labels.recognize import read_labels
from tests.helpers.image_files import noise, palette_png, write
from tests.helpers.label_files import (
    blob,
    write_coco,
    write_cutouts,
    write_cvat,
    write_images,
    write_index_masks,
    write_labelme,
    write_yolo,
)

MASKS = {"a.png": blob(0)}


def test_labels_beside_their_images(tmp_path: Path) -> None:
    """Label files come first, whatever images are in the folder."""
    write_yolo(write_images(tmp_path / "yolo", MASKS), MASKS)
    write_labelme(write_cutouts(tmp_path / "labelme", MASKS), MASKS)
    write_coco(write_index_masks(tmp_path / "coco", MASKS) / "a.json", MASKS)
    write_cvat(write_images(tmp_path / "cvat", MASKS) / "a.xml", MASKS)

    found = {each.name: read_labels(each).format for each in tmp_path.iterdir()}
    assert found == {
        "yolo": "YOLO segmentation",
        "labelme": "labelme JSON",
        "coco": "COCO JSON",
        "cvat": "CVAT XML",
    }


def test_labels_of_several_kinds(tmp_path: Path) -> None:
    """It is not guessed which of them are meant."""
    write_yolo(tmp_path, MASKS)
    write_labelme(tmp_path, MASKS)
    with pytest.raises(DataError, match=r"contains several sets of labels: YOLO text files, labelme JSON\n"):
        read_labels(tmp_path)

    for name in ("train.json", "val.json"):
        write_coco(tmp_path / "coco" / name, MASKS)
    with pytest.raises(
        DataError, match=r"several sets of labels: the COCO file train\.json, the COCO file val\.json\n"
    ):
        read_labels(tmp_path / "coco")


def test_no_labels(tmp_path: Path) -> None:
    """What was found instead is named, and what was expected."""
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "images", MASKS)
    for path, message in [
        (tmp_path / "nowhere", "not found, expected labels"),
        (tmp_path / "empty", "contains no labels that camox knows"),
        (tmp_path / "images", "contains color images without transparency"),
        (tmp_path / "images" / "a.png", "is a file of an unknown format"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            read_labels(path)
        assert "COCO JSON" in caught.value.hint
    (tmp_path / "data.yaml").write_text("names: [fox]")
    for name in ("a.xml", "b.xml"):
        (tmp_path / "empty" / name).write_text("<annotation></annotation>")
    with pytest.raises(DataError, match="is an annotation of Pascal VOC"):
        read_labels(tmp_path / "empty")
    with pytest.raises(DataError, match="is a single file, expected a folder of YOLO text files"):
        read_labels(tmp_path / "data.yaml")


def test_index_masks(tmp_path: Path) -> None:
    """Each level is a class; a palette's colors do not matter; 255 is told."""
    mask = (blob(0) // 255).astype(np.uint8)
    mask[:5] = 255
    mask[-5:] = 3
    write(tmp_path / "a.png", mask)
    (tmp_path / "b.png").write_bytes(palette_png(mask % 255, np.zeros((4, 3), np.uint8)))
    labels = read_labels(tmp_path)

    assert [[each.number for each in image.objects] for image in labels.images] == [[1, 3, 255], [1, 3]]
    assert labels.notes == [
        "1 mask contains 255, which often marks pixels to ignore: background here unless chosen with --class 255"
    ]


def test_masks_that_need_no_import(tmp_path: Path) -> None:
    """Those of 0 and 255 are what training takes."""
    write_index_masks(tmp_path, MASKS, 255)
    with pytest.raises(DataError, match="contain only 0 and 255, which is what camox trains on") as caught:
        read_labels(tmp_path)

    assert caught.value.hint == f"camox train --images DIR --masks {tmp_path}"


def test_a_mask_in_color(tmp_path: Path) -> None:
    """One among many, which is not looked at to recognize the format, is named."""
    for at in range(25):
        write(tmp_path / f"{at:02}.png", np.eye(9, dtype=np.uint8))
    write(tmp_path / "99.png", noise(0))
    with pytest.raises(DataError, match=r"the mask .*99\.png is in color, expected numbers of classes"):
        read_labels(tmp_path)


def test_cutouts_without_a_background(tmp_path: Path) -> None:
    """Where everything behind the object has one color, the network would learn that color: it is told."""
    write_cutouts(tmp_path, MASKS)
    assert read_labels(tmp_path).notes == []

    mask = blob(1)
    write(tmp_path / "b.png", np.dstack([noise(1, *mask.shape) * (mask[..., None] > 0), mask]))

    (note,) = read_labels(tmp_path).notes
    assert note.startswith("in 1 image all transparent pixels have the same color: the background was removed")
