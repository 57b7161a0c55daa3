"""Whatever is wrong in a label file: it is read, or refused in one sentence that names the file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camoxpert_cli.errors import DataError
from camoxpert_cli.labels.recognize import read_labels
from tests.helpers.label_files import (
    blob,
    coco_of,
    coco_polygons,
    coco_runs,
    coco_text,
    cvat_mask,
    cvat_of,
    cvat_polygons,
    labelme_of,
    write_yolo,
)

SMALL = {name: np.ascontiguousarray(blob(seed)[::5, ::5]) for seed, name in enumerate(("a.png", "b.png"))}
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 40),
        st.sampled_from([10**12, -(10**12), 10**400, 1e308, float("nan"), float("inf")]),
        st.floats(-50, 50),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=5,
)
any_number = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_and_draw(path: Path) -> None:
    """Fails with anything but DataError, whose message has one line and names the file."""
    try:
        labels = read_labels(path)
    except DataError as error:
        refused = error.message
    else:
        refused = ""
    if refused:
        assert str(path) in refused
        assert "\n" not in refused
        return
    for image in labels.images:
        for each in image.objects:
            height, width = image.size or (24, 32)
            assert bool(each.draw) != bool(each.problem)
            if each.draw and height * width < 10**6:
                each.draw(np.zeros((height, width), np.uint8))


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every list or dictionary in a JSON content with every key or index of it."""
    items = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    return [(node, key) for key, _ in items] + [place for _, child in items for place in places(child)]


def labelme() -> dict[str, Any]:
    shapes: list[dict[str, Any]] = [
        {"label": "fox", "shape_type": "polygon", "points": [[1, 1], [20, 2], [9, 19]]},
        {"label": "fox", "shape_type": "circle", "points": [[9, 9], [9, 19]]},
        {"label": "fox", "shape_type": "rectangle", "points": [[1, 1], [9, 19]]},
    ]
    return labelme_of(SMALL["a.png"], "a.png", shapes)


@any_number
@given(st.data())
@pytest.mark.parametrize(
    "make",
    [
        lambda: coco_of(SMALL, coco_polygons),
        lambda: coco_of(SMALL, coco_runs),
        lambda: coco_of(SMALL, coco_text),
        labelme,
    ],
    ids=["COCO", "COCO RLE", "COCO compressed RLE", "labelme"],
)
def test_another_value_in_json(tmp_path: Path, make: Callable[[], Any], data: st.DataObject) -> None:
    """Anywhere in the file, of any type."""
    content = copy.deepcopy(make())
    node, key = data.draw(st.sampled_from(places(content)))
    node[key] = data.draw(VALUES)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))

    read_and_draw(path)


@any_number
@given(st.data())
@pytest.mark.parametrize("kind", ["CVAT", "CVAT masks", "YOLO", "COCO"])
def test_other_text_in_a_file(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """In place of any part of it."""
    source = path = tmp_path / {"YOLO": "labels/a.txt", "COCO": "a.json"}.get(kind, "a.xml")
    if kind == "YOLO":
        source = write_yolo(tmp_path / "labels", SMALL)
    elif kind == "COCO":
        path.write_text(json.dumps(coco_of(SMALL, coco_text)))
    else:
        path.write_text(cvat_of(SMALL, cvat_polygons if kind == "CVAT" else cvat_mask))
    text = path.read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    path.write_text(text[:start] + data.draw(st.text(max_size=8)) + text[end:], errors="replace")

    read_and_draw(source)
