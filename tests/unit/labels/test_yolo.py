"""YOLO's text files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.errors import DataError
from camoxpert_cli.labels.recognize import read_labels
from camoxpert_cli.labels.yolo import BOX, parse_line

LINE = "0 0.1 0.1 0.5 0.1 0.5 0.5"
SHARES = st.floats(0, 1, allow_nan=False)


@given(st.integers(0, 999), st.lists(st.tuples(SHARES, SHARES), min_size=3, max_size=9))
def test_polygons(number: int, points: list[tuple[float, float]]) -> None:
    """Any number of points is drawn at the size of the image."""
    line = " ".join([str(number), *(f"{each!r}" for point in points for each in point)])
    found = parse_line(line, {5: "fox"})
    mask = np.zeros((30, 40), np.uint8)

    assert (found.number, found.name) == (number, "fox" if number == 5 else str(number))
    assert found.draw is not None
    found.draw(mask)


@given(st.text().filter(str.strip))
def test_any_other_text(line: str) -> None:
    """It is an object, or refused in one sentence."""
    with suppress(ValueError):
        assert parse_line(line, {}).name


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fox 0.1 0.1 0.5 0.1 0.5 0.5", "the class is 'fox', expected a number such as 0"),
        ("-1 0.1 0.1 0.5 0.1 0.5 0.5", "the class is '-1'"),
        ("0 0.1 0.1 0.5 0.1 0.5", None),
        ("0 0.1 0.1", "2 numbers follow the class, expected pairs of coordinates of at least 3 points"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.7", "7 numbers follow the class"),
        ("0 0.1 0.1 0.5 x 0.5 0.5", "'x' is not a number"),
        ("0 0.1 0.1 0.5 nan 0.5 0.5", "the coordinate 'nan' is not between 0 and 1"),
        ("0 10 20 50 20 50 60", "the coordinate '10' is not between 0 and 1, as shares of the image's sides are"),
    ],
)
def test_malformed_lines(tmp_path: Path, line: str, message: str | None) -> None:
    """The file and the line are named."""
    (tmp_path / "a.txt").write_text(f"{LINE}\n\n{line}\n")
    if message is None:
        assert len(read_labels(tmp_path).images[0].objects) == 2
        return
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path)

    assert caught.value.message.startswith(f"{tmp_path / 'a.txt'}, line 3: {message}")


def test_boxes_have_no_mask() -> None:
    """With or without how certain a prediction is."""
    for line in ("2 0.5 0.5 0.2 0.3", "2 0.5 0.5 0.2 0.3 0.9"):
        found = parse_line(line, {2: "owl"})

        assert (found.name, found.draw, found.problem) == ("owl", None, BOX)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "owl\nfox\n"),
        ("data.yaml", "nc: 2\nnames: [owl, fox]\n"),
        ("data.yaml", "names:\n  0: owl\n  1: fox\n"),
        ("labels/train/classes.txt", "owl\nfox\n"),
    ],
)
def test_names_of_classes(tmp_path: Path, name: str, text: str) -> None:
    """From a file beside the labels, or up to two folders above; without one, the number is the name."""
    folder = tmp_path / "labels" / "train"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("1" + LINE[1:])
    assert read_labels(folder).images[0].objects[0].name == "1"

    (tmp_path / name).write_text(text)

    assert read_labels(folder).images[0].objects[0].name == "fox"


def test_malformed_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(LINE)
    (tmp_path / "data.yaml").write_text("names:\n  - [owl\n")
    with pytest.raises(DataError, match=r"data\.yaml, line 3: not YAML"):
        read_labels(tmp_path)


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    """Lists and notes are passed over; an image may have such a name, and an empty file labels one without objects."""
    for name, text in {
        "classes.txt": "owl",
        "README.dataset.txt": "Exported from somewhere",
        "train.txt": "images/a.jpg",
        "test.txt": LINE,
        "empty.txt": "",
        "sub/a.txt": LINE,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    found = {image.names[0]: len(image.objects) for image in read_labels(tmp_path).images}
    assert found == {"empty.txt": 0, "test.txt": 1, "sub/a.txt": 1}


def test_text_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(LINE)
    (tmp_path / "b.txt").write_bytes(b"0 0.1\n\xff\xfe")
    with pytest.raises(DataError, match=r"b\.txt, line 2: not text in UTF-8"):
        read_labels(tmp_path)
