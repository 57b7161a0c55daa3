"""What predictions were made from, and which of those that are there may be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camoxpert_cli.config.parse import NO_TTA, Tta, parse_tta
from camoxpert_cli.data.writing import NO_NOTE, Note, write_image
from camoxpert_cli.errors import UsageError
from camoxpert_cli.inference.provenance import Earlier, difference, file_digest, find_earlier, settings_of

SETTINGS = settings_of("camox predict", "ab12", NO_TTA, img_size=64, threshold=0.1)
INPUTS = {"image": "cd34"}


def prediction(path: Path, note: Note = NO_NOTE) -> Path:
    write_image(path, np.zeros((8, 8), np.uint8), "--out", note=note)
    return path


def earlier(files: dict[Path, Note], folder: Path, overwrite: bool = False) -> Earlier:
    return find_earlier(files, SETTINGS, folder, overwrite=overwrite, hint="choose another folder with --out")


@pytest.mark.parametrize(
    ("tta", "text"), [("flip", "flip,1"), ("scales", "0.75,1,1.25"), ("flip,scales", "flip,0.75,1,1.25")]
)
def test_views_are_told_apart(tta: str, text: str) -> None:
    """No two test-time augmentations have the same settings."""
    assert settings_of("camox predict", "ab12", parse_tta(tta))["tta"] == text
    assert settings_of("camox predict", "ab12", Tta(flip=False, scales=(1.0,)))["tta"] is None


def test_what_is_kept(tmp_path: Path) -> None:
    """Files that say the same settings and the same inputs; those that are cut off are outdated."""
    same = prediction(tmp_path / "same.png", {**SETTINGS, **INPUTS})
    cut = prediction(tmp_path / "cut.jpg", {**SETTINGS, **INPUTS})
    cut.write_bytes(cut.read_bytes()[:-1])
    files: dict[Path, Note] = dict.fromkeys((same, cut, tmp_path / "none.png"), INPUTS)

    assert earlier(files, tmp_path) == Earlier(frozenset([same]), frozenset([cut]))


def test_an_input_that_cannot_be_read(tmp_path: Path) -> None:
    """It has no digest, and two files without one need not be the same."""
    path = prediction(tmp_path / "a.png", {**SETTINGS, "image": file_digest(tmp_path / "lost.png")})

    assert earlier({path: {"image": ""}}, tmp_path) == Earlier(outdated=frozenset([path]))


@pytest.mark.parametrize(
    "note",
    [
        NO_NOTE,
        {**SETTINGS, **INPUTS, "checkpoint": "ef56"},
        {**SETTINGS, **INPUTS, "more": 1},
        {**SETTINGS, "image": "of another folder"},
    ],
)
def test_files_of_other_settings(tmp_path: Path, note: Note) -> None:
    """They are refused, with their number and one of them, unless they may be replaced."""
    same = prediction(tmp_path / "0.png", {**SETTINGS, **INPUTS})
    others = [prediction(tmp_path / f"{name}.png", note) for name in "12"]
    files: dict[Path, Note] = dict.fromkeys((same, *others), INPUTS)
    with pytest.raises(
        UsageError,
        match=f"2 files in {tmp_path} are from other images, another checkpoint or other options: .*1.png",
    ):
        earlier(files, tmp_path)

    assert earlier(files, tmp_path, overwrite=True) == Earlier(frozenset([same]), frozenset(others))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": "ef56"}, "was made with another checkpoint"),
        ({"img_size": 96}, "was made with img_size 96"),
        ({"threshold": None, "tta": "flip,1"}, "was made with tta flip,1 and no threshold"),
        (
            {"version": 9, "command": "camox eval", "img_size": "x" * 300},
            "was made with another command, another version",
        ),
        ({"more": 1}, "was made with further options"),
    ],
)
def test_differences(changes: dict[str, Any], words: str) -> None:
    """Each is named; a file may say anything."""
    assert difference({**SETTINGS, **changes}, SETTINGS).startswith(words)
    assert len(difference({**SETTINGS, **changes}, SETTINGS)) < 400
    assert difference({"img_size": 64}, SETTINGS) == "does not say how it was made"
