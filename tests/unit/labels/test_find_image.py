"""Which image labels belong to."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_cli.labels.find_image import Images

FOLDER = Path("photos")


def find(images: list[str], *names: str) -> list[str]:
    found = Images(FOLDER, [FOLDER / each for each in images]).find(names)
    return [path.relative_to(FOLDER).as_posix() for path in found]


@pytest.mark.parametrize(
    ("images", "name", "expected"),
    [
        (["a.jpg"], "a.jpg", ["a.jpg"]),
        (["a.jpg"], "labels/a.txt", ["a.jpg"]),
        (["a.jpg"], "/data/coco/a.png", ["a.jpg"]),
        (["a.jpg"], r"C:\photos\a.jpg", ["a.jpg"]),
        (["a.jpg"], "b.jpg", []),
        (["a.v2.jpg", "a.jpg"], "a.v2.txt", ["a.v2.jpg"]),
        (["train/a.jpg", "val/a.jpg"], "labels/val/a.txt", ["val/a.jpg"]),
        (["train/a.jpg", "val/a.jpg"], "a.jpg", ["train/a.jpg", "val/a.jpg"]),
        (["train/a.jpg", "a.jpg"], "test/a.jpg", ["train/a.jpg", "a.jpg"]),
        (["x/train/a.jpg", "y/train/a.jpg"], "y/train/a.jpg", ["y/train/a.jpg"]),
        (["a.jpg", "a.png"], "a.png", ["a.png"]),
        (["x/a.jpg", "y/a.png"], "x/a.png", ["x/a.jpg"]),
        (["images/a.jpg", "a.jpg"], "labels/../images/a.jpg", ["images/a.jpg"]),
    ],
)
def test_find(images: list[str], name: str, expected: list[str]) -> None:
    """By its stem; of several, by the folders, and then by the extension."""
    assert find(images, name) == expected


def test_further_names() -> None:
    """Are used where the first has no image."""
    assert find(["a.jpg", "b.jpg"], "c.jpg", "b.json") == ["b.jpg"]
    assert find(["a.jpg", "b.jpg"], "a.jpg", "b.json") == ["a.jpg"]
