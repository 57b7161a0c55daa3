"""COCO JSON: which annotations become objects, and what is said of those that cannot."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from camoxpert_cli.errors import DataError
from camoxpert_cli.labels.coco import read_coco, runs_of_text
from camoxpert_cli.labels.recognize import read_labels
from tests.helpers.label_files import blob, coco_of, coco_polygons, coco_runs, runs

PATH = Path("instances.json")
MASKS = {"a.jpg": blob(0), "b.jpg": blob(1)}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_compressed_runs(height: int, width: int, seed: int, share: float) -> None:
    """What pycocotools compresses is decompressed."""
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    text = reference.encode(np.asfortranarray(mask))["counts"].decode()

    assert runs_of_text(text) == runs(mask.T)


@given(st.text())
def test_any_text_instead_of_runs(text: str) -> None:
    """It has runs, or is refused; pycocotools would read beyond its end."""
    with suppress(ValueError):
        assert all(isinstance(each, int) for each in runs_of_text(text))


def changed(**changes: Any) -> dict[str, Any]:
    """A file whose first annotation has other values."""
    content = coco_of(MASKS, coco_polygons)
    content["annotations"][0].update(changes)
    return content


def test_objects() -> None:
    """Each image has its size and the objects of its annotations, with name and number of their class."""
    content = coco_of(MASKS, coco_polygons)
    content["annotations"].append(
        {**content["annotations"][0], "id": 5, "iscrowd": 1, "segmentation": coco_runs(MASKS["a.jpg"])}
    )
    labels = read_coco(PATH, content)

    first, second = labels.images
    assert (first.names, first.size) == (("a.jpg",), MASKS["a.jpg"].shape)
    assert [(each.name, each.number) for each in first.objects] == [("fox", 7)] * 2
    assert all(each.draw for each in first.objects)
    assert len(second.objects) == 1
    assert labels.notes == ["1 crowd annotation included"]


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        (None, "boxes or points without a mask"),
        ([], "boxes or points without a mask"),
        ({}, "boxes or points without a mask"),
        ([[1, 2, 3, 4]], "polygons with fewer than 3 points"),
        ({"size": [3, 4], "counts": [12]}, "masks of another size than their image"),
    ],
)
def test_annotations_without_an_area(segmentation: Any, problem: str) -> None:
    """They are objects that nothing draws, and the reason is kept."""
    (found,) = read_coco(PATH, changed(segmentation=segmentation)).images[0].objects

    assert (found.draw, found.problem) == (None, problem)


def test_a_polygon_without_its_outer_list() -> None:
    """Some programs write it so."""
    (found,) = read_coco(PATH, changed(segmentation=[10, 10, 50, 10, 50, 50])).images[0].objects

    assert found.draw is not None


def test_the_size_of_an_image_may_be_left_out() -> None:
    """An RLE has it; polygons fit any."""
    content = coco_of(MASKS, coco_runs)
    for image in content["images"]:
        del image["height"]
    content["annotations"][1]["segmentation"] = [[10, 10, 50, 10, 50, 50]]

    assert [image.size for image in read_coco(PATH, content).images] == [MASKS["a.jpg"].shape, None]


def test_annotations_of_unknown_images() -> None:
    """Are counted."""
    assert read_coco(PATH, changed(image_id=77)).notes == [
        "skipped 1 annotation of images that instances.json does not list"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category_id": 3}, "annotation 100 has the category_id 3, which categories lack"),
        ({"segmentation": [[1, 2, 3]]}, r"annotation 100 has the polygon \[1, 2, 3\], expected pairs of numbers"),
        ({"segmentation": [[1, "x"]]}, "annotation 100 has the polygon"),
        ({"segmentation": [[1, 2, float("nan"), 4, 5, 6]]}, "expected pairs of numbers"),
        ({"segmentation": 3}, "annotation 100 has the segmentation 3, expected polygons or an RLE"),
        ({"segmentation": {"size": [-3, -4], "counts": [12]}}, "expected polygons or an RLE"),
        ({"segmentation": {"size": [3, 4], "counts": [5]}}, "annotation 100: its runs have 5 pixels, expected 12"),
        ({"segmentation": {"size": [3, 4], "counts": [1.5]}}, "expected whole numbers"),
        ({"segmentation": {"size": [3, 4], "counts": "é"}}, "annotation 100: its counts contain 'é'"),
        ({"segmentation": {"size": [3, 4], "counts": "P"}}, "annotation 100: its counts are cut off"),
        ({"segmentation": {"size": [10**6, 10**6], "counts": "1"}}, "expected at most 100000000"),
        ({"image_id": [1]}, r"annotations\[0\] is .*, expected an entry with image_id and category_id"),
    ],
)
def test_malformed_annotations(changes: dict[str, Any], message: str) -> None:
    """The file and the annotation are named."""
    with pytest.raises(DataError, match=f"^instances.json: .*{message}"):
        read_coco(PATH, changed(**changes))


def test_malformed_files(tmp_path: Path) -> None:
    """The line is named where the text is no JSON."""
    path = tmp_path / "a.json"
    for text, message in [
        ('{"images": [],\n"annotations": [}', ", line 2: not JSON: Expecting value"),
        ('{"images": [], "annotations": 3}', ": annotations is 3, expected a list"),
        ('{"images": [{"id": 1}], "annotations": []}', ": images[0] is {'id': 1}, expected an entry with id and file"),
        ("[" * 100_000, "nested too deeply"),
        ("3", " contains neither COCO's images and annotations nor labelme's shapes"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            read_labels(path)

        assert caught.value.message.startswith(str(path))
        assert message in caught.value.message
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a"}] * 2, "annotations": []}))
    with pytest.raises(DataError, match="two images have the id 1"):
        read_labels(path)
