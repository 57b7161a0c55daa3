"""`camox import-labels`: what it prints and exits with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from tests.helpers.image_files import noise, write
from tests.helpers.label_files import blob, write_images, write_yolo


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["import-labels", *map(str, arguments)])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labels of three images: one of a fox, one of a box, one without an object; a fourth has none."""
    monkeypatch.chdir(tmp_path)
    masks = {"a.png": blob(0), "b.png": blob(1), "c.png": blob(2)}
    write(write_images(Path("images"), masks) / "d.png", noise(4))
    write_yolo(Path("labels"), {"a.png": masks["a.png"]})
    (Path("labels") / "b.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (Path("labels") / "c.txt").write_text("")
    return Path("labels")


def test_summary(source: Path) -> None:
    """What was found, written and skipped, with the reasons, and what to type next; nothing else is printed."""
    outcome = run(source, "--images", "images", "--out", "DATA")

    assert outcome.exit_code == 0, outcome.output
    assert outcome.stderr == ""
    area = f"{(blob(0) > 0).mean():.1%}"
    assert outcome.stdout.splitlines() == [
        "labels: YOLO segmentation; objects by class: fox (1), owl (1)",
        f"Written: 1 image with its mask in DATA/TrainDataset/Imgs and GT; object area {area} to {area}, median {area}",
        "Skipped 1 image, no object with an area: b.txt",
        "Skipped 1 image, no object of the chosen classes: c.txt",
        "Skipped 1 image, no label: d.png",
        "Skipped 1 object: detection boxes (5 numbers), which are no masks",
        "All skipped images: DATA/skipped.csv",
        "Next: camox check-data DATA, then camox train --preset finetune --dataset-path DATA",
    ]


def test_negatives(source: Path) -> None:
    """Where they were asked for, the next command uses them."""
    lines = run(source, "--images", "images", "--out", "my data", "--class", "fox", "--keep-empty").stdout.splitlines()

    assert "Written: 3 images without an object in my data/negatives" in lines
    command = shlex.split(lines[-1].partition(", then ")[2])
    assert command[-4:] == ["--dataset-path", "my data", "--negatives", "my data/negatives"]


def test_data_can_be_trained_on(source: Path) -> None:
    """The check that is recommended finds no problem."""
    run(source, "--images", "images", "--out", "DATA")
    outcome = CliRunner().invoke(app, ["check-data", "DATA"])

    assert outcome.exit_code == 0, outcome.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["labels", "--images", "images"], 2, "--out"),
        (["nowhere", "--out", "DATA"], 3, "Error: nowhere not found, expected labels\nTry:   pass COCO JSON"),
        (["labels", "--images", "images", "--out", "images"], 2, "Error: images is not empty, it contains a.png\nTry:"),
        (["labels", "--images", "nowhere", "--out", "DATA"], 3, "Error: folder nowhere not found\n"),
        (
            ["labels", "--images", "images", "--out", "DATA", "--class", "cat"],
            3,
            "Error: no object of class 'cat'\nTry:   one of these classes: fox or 1 (1), owl or 0 (1)\n",
        ),
    ],
)
def test_mistakes(source: Path, arguments: list[str], code: int, message: str) -> None:
    """One sentence and what to do instead; nothing is written."""
    outcome = run(*arguments)

    assert outcome.exit_code == code
    assert message in outcome.stderr
    assert outcome.stdout == ""
    assert not Path("DATA").exists()
