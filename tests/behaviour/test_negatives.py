"""Images without an object, by the commands that take them, from training to false alarms."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.data.synthetic import write_dataset
from tests.helpers.textures import write_negatives
from tests.helpers.vivid import vivid_network, write_vivid_checkpoint

TRAINING: dict[str, object] = {
    **{"--backbone": "test_resnet", "--num-experts": 2, "--img-size": 64, "--batch-size": 4, "--num-workers": 0},
    **{"--epochs": 2, "--stage1-epochs": 1, "--val-fraction": 0.25, "--device": "cpu", "--save-every": 1},
}


def camox(command: str, *arguments: object) -> Any:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of textures, a folder of textures without an object, and a run trained on both."""
    root = tmp_path_factory.mktemp("negatives")
    write_dataset(root / "data", seed=0, train=12, test=3, size=64)
    write_negatives(root / "sea", 8)
    options = [str(part) for option in TRAINING.items() for part in option]
    outcome = camox(
        "train",
        *("--dataset-path", root / "data", "--negatives", root / "sea", "--cache", root / "cache"),
        *("--checkpoint-dir", root / "run", "--no-pretrained", *options),
    )
    assert outcome.exit_code == 0, outcome.output
    (root / "stderr").write_text(outcome.stderr)
    (root / "stdout").write_text(outcome.stdout)
    return root


def test_training(place: Path) -> None:
    """What is trained on is said at the start; history, results and the tables tell false alarms of held-out ones."""
    said, printed = (" ".join((place / name).read_text().split()) for name in ("stderr", "stdout"))
    history = json.loads((place / "run" / "history.json").read_text())
    results = json.loads((place / "run" / "results.json").read_text())
    alarms = results["validation"]["without_object"]
    best = history[results["epoch"] - 1]

    assert f"{place / 'sea'}: 8 images without an object" in said
    assert "without an object: 6 for training, 2 per epoch (18% of each batch), 2 for validation" in said
    assert said.count("without an object: false alarms in ") == len(history) == 2
    assert alarms == {name: best.get(name, 2) for name in ("images", "false_alarms", "predicted_area")}
    assert results["validation"]["images"] == 3
    for name in ("iou", "mae"):
        assert results["validation"][name] == pytest.approx(best[name], abs=1e-12)
    assert "without_object" not in results["tests"]["synthetic"]
    assert "validation: 2 images without an object: false alarms in" in printed


def test_status_and_resume(place: Path) -> None:
    """The images of an epoch are those of both kinds; a longer run needs no option again."""
    status = json.loads(camox("status", place / "run", "--json").stdout)
    longer = camox("resume", place / "run", "--checkpoint-dir", place / "longer", "--epochs", 3)

    assert status["images"] == 11
    assert longer.exit_code == 0, longer.output
    assert "6 for training, 2 per epoch" in longer.stderr
    assert len(json.loads((place / "longer" / "history.json").read_text())) == 3


@pytest.fixture(scope="module")
def vivid(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that predicts something."""
    return write_vivid_checkpoint(vivid_network(tiny_data), tmp_path_factory.mktemp("vivid") / "vivid.pth")


def test_evaluation(place: Path, vivid: Path) -> None:
    """False alarms are those of the predictions that are saved, unstretched; continuing computes nothing again."""
    arguments = [
        *(vivid, "--dataset-path", place / "data", "--negatives", place / "sea"),
        *("--device", "cpu", "--out", place / "scores", "--save-predictions", place / "predictions", "--continue"),
    ]
    outcome = camox("eval", *arguments)
    again = camox("eval", *arguments)
    sets = json.loads((place / "scores" / "results.json").read_text())["sets"]
    predictions = [cv2.imread(str(path), 0) for path in sorted((place / "predictions" / "sea").iterdir())]
    areas = [float(np.mean(grey > 127)) for grey in predictions if grey is not None]
    with (place / "scores" / "per_image.csv").open() as file:
        listed = {row["name"]: row["predicted_area"] for row in csv.DictReader(file) if row["dataset"] == "sea"}

    assert outcome.exit_code == 0, outcome.output
    assert len(set(areas)) > 2
    assert sets["sea"]["images"] == 0
    assert sets["sea"]["without_object"] == {
        "images": 8,
        "false_alarms": np.mean(np.array(areas) > 0),
        "predicted_area": pytest.approx(np.mean(areas)),
    }
    assert [float(area) for area in listed.values()] == areas
    assert "sea: 8 images without an object" in (place / "scores" / "report.html").read_text()
    assert "Nothing to do" in again.stderr
    assert again.stdout == outcome.stdout


def test_empty_masks(place: Path, vivid: Path, tmp_path: Path) -> None:
    """Empty masks of a test set are apart from its scores unless one asks for the rules of PySODMetrics."""
    folder = place / "data" / "TestDataset" / "synthetic"
    for index, part in enumerate(("Imgs", "GT")):
        for path in (folder / part).iterdir():
            (tmp_path / "SET" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "SET" / part / path.name).write_bytes(path.read_bytes())
        pixels = np.zeros((64, 64), np.uint8) if index else np.full((64, 64, 3), 90, np.uint8)
        cv2.imwrite(str(tmp_path / "SET" / part / "nothing.png"), pixels)
    whole, apart, reference = (
        json.loads(camox("eval", vivid, "--dataset-path", data, "--device", "cpu", "--json", *more).stdout)["sets"]
        for data, more in (
            (folder, ()),
            (tmp_path / "SET", ()),
            (tmp_path / "SET", ("--empty-masks", "reference")),
        )
    )

    alarms = apart["SET"].pop("without_object")
    assert apart["SET"] == whole["synthetic"]
    assert alarms["images"] == 1
    assert whole["synthetic"]["iou"] > 0
    assert (reference["SET"]["images"], reference["SET"]["without_object"]) == (4, alarms)
    assert reference["SET"]["iou"] == pytest.approx(whole["synthetic"]["iou"] * 3 / 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "--dataset-path", "data", "--negatives", "nowhere"), "nowhere not found"),
        (("train", "--dataset-path", "data", "--negatives-share", "0.95"), "expected a number from 0 to 0.9"),
        (("eval", "--predictions", "sea", "--masks", "sea", "--negatives", "sea"), "is only for checkpoints"),
    ],
)
def test_mistakes(place: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str) -> None:
    """One sentence that names the value, and nothing is written."""
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    outcome = camox(*arguments)

    assert outcome.exit_code in (2, 3)
    assert said in " ".join(outcome.stderr.split())
    assert "Traceback" not in outcome.output
    assert sorted(place.iterdir()) == before
