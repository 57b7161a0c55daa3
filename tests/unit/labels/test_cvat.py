"""CVAT's XML for images."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.errors import DataError
from camoxpert_cli.labels.cvat import parse_points, parse_runs
from camoxpert_cli.labels.labelled import Labels
from camoxpert_cli.labels.recognize import read_labels
from tests.helpers.label_files import Mask, cvat_of, runs

SIZE = np.zeros((60, 80), np.uint8)


def read(folder: Path, *elements: str) -> Labels:
    path = folder / "a.xml"
    path.write_text(cvat_of({"day/a.png": SIZE}, lambda mask: elements))
    return read_labels(path)


def drawn(folder: Path, element: str) -> Mask:
    mask = SIZE.copy()
    (found,) = read(folder, element).images[0].objects
    assert found.draw is not None
    found.draw(mask)
    return mask


@given(st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=1, max_size=9))
def test_points(points: list[tuple[float, float]]) -> None:
    assert parse_points(";".join(f"{x!r},{y!r}" for x, y in points)) == points


@given(st.binary(min_size=1, max_size=50))
def test_runs_of_pixels(pixels: bytes) -> None:
    """They are read whatever the spaces between them."""
    lengths = runs(np.frombuffer(pixels, np.uint8)[None] % 2)

    assert parse_runs(", ".join(map(str, lengths))) == lengths
    assert parse_runs(",".join(map(str, lengths))) == lengths


@given(st.text())
def test_any_other_text(text: str) -> None:
    """It is read, or refused as what it is."""
    with suppress(ValueError):
        parse_points(text)
    with suppress(ValueError):
        parse_runs(text)


def test_objects(tmp_path: Path) -> None:
    """Of areas; tags and attributes are no objects, and lines and points have no area."""
    labels = read(
        tmp_path,
        '<tag label="night" source="manual"/>',
        '<polygon label="fox" points="1,1;9,1;9,9"><attribute name="age">3</attribute></polygon>',
        '<polyline label="fox" points="1,1;9,1"/>',
        '<points label="owl" points="1,1"/>',
        '<polygon label="owl" points="1,1;9,1"/>',
    )
    (image,) = labels.images

    assert (image.names, image.size) == (("day/a.png",), (60, 80))
    assert [(each.name, each.draw is not None, each.problem) for each in image.objects] == [
        ("fox", True, ""),
        ("fox", False, "shapes of type polyline"),
        ("owl", False, "shapes of type points"),
        ("owl", False, "polygons with fewer than 3 points"),
    ]


def test_boxes_and_ellipses(tmp_path: Path) -> None:
    box = drawn(tmp_path, '<box label="fox" xtl="10" ytl="20" xbr="30" ybr="50"/>')
    turned = drawn(tmp_path, '<box label="fox" xtl="5" ytl="25" xbr="35" ybr="45" rotation="90.0"/>')
    ellipse = drawn(tmp_path, '<ellipse label="fox" cx="40" cy="30" rx="25" ry="15"/>')
    y, x = np.mgrid[:60, :80] + 0.5

    assert box[20:50, 10:30].all()
    assert box.sum() == 255 * 30 * 20
    assert np.array_equal(box, turned)
    assert np.array_equal(ellipse > 0, ((x - 40) / 25) ** 2 + ((y - 30) / 15) ** 2 <= 1)


def test_masks(tmp_path: Path) -> None:
    """Rows of a box: first background, then object."""
    mask = drawn(tmp_path, '<mask label="fox" rle="1, 2, 3" left="10" top="20" width="3" height="2"/>')

    assert np.argwhere(mask).tolist() == [[20, 11], [20, 12]]


@pytest.mark.parametrize(
    ("element", "message"),
    [
        ('<polygon label="fox" points="1,1;9;9,9"/>', "'9' is not a point, expected x,y"),
        ('<polygon label="fox" points="1,1;9,x;9,9"/>', "'x' is not a number that can be a coordinate"),
        ('<polygon label="fox" points="1,1;9,nan;9,9"/>', "'nan' is not a number"),
        ('<polygon label="fox"/>', "the attribute points is missing"),
        ('<polygon points="1,1;9,1;9,9"/>', "the attribute label is missing"),
        ('<mask label="fox" rle="1,2" left="1" top="1" width="3" height="2"/>', "its runs have 3 pixels, expected 6"),
        ('<mask label="fox" rle="1,-2" left="1" top="1" width="3" height="2"/>', "the rle contains '-2'"),
        ('<mask label="fox" rle="" left="1" top="1" width="3" height="2"/>', "the rle contains ''"),
        ('<mask label="fox" rle="6" left="1" top="1" width="-3" height="-2"/>', "the width is '-3', expected a whole"),
        ('<box label="fox" xtl="1" ytl="1" xbr="2"/>', "the attribute ybr is missing"),
        ('<polygon label="fox"', "not XML: not well-formed"),
    ],
)
def test_malformed_elements(tmp_path: Path, element: str, message: str) -> None:
    """The file and the line are named."""
    with pytest.raises(DataError) as caught:
        read(tmp_path, "", element)

    line = 6 + element.endswith('"fox"')
    assert caught.value.message.startswith(f"{tmp_path / 'a.xml'}, line {line}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "<annotation><object/></annotation>",
            "is an annotation of Pascal VOC, which has boxes and no masks",
        ),
        ("<annotations><track id='0'/></annotations>", "is CVAT's format for videos, expected CVAT for images 1.1"),
        ("<html></html>", "is XML of html, expected"),
        ("", "not XML: no element found"),
    ],
)
def test_other_xml(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "a.xml")
