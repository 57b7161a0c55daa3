"""A trained network is a better start on a few images of another kind than random weights, and is never made worse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.data.synthetic import generate_image

VALIDATION = 60


def camox(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "camoxpert_cli", "train", "--preset", "quickstart", "--no-report", "--json"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's network."""
    folder = tmp_path_factory.mktemp("start") / "run"
    camox("--checkpoint-dir", folder)
    return folder / "best_model.pth"


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Textures that the quickstart does not train on, shown at two thirds of the size and with inverted colors."""
    folder = tmp_path_factory.mktemp("shifted")
    for part, indices in (("train", range(50)), ("val", range(50, 50 + VALIDATION))):
        for name in ("images", "masks"):
            (folder / part / name).mkdir(parents=True)
        for index in indices:
            image, mask = generate_image(7, index, "val", 96)
            cv2.imwrite(str(folder / part / "images" / f"{index:03}.png"), 255 - image)
            cv2.imwrite(str(folder / part / "masks" / f"{index:03}.png"), mask)
    return folder


@pytest.mark.parametrize("count", [20, 50])
def test_few_images_of_another_kind(start: Path, shifted: Path, tmp_path: Path, count: int) -> None:
    """With as many steps, it ends above its start and above what is trained from random weights."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for path in sorted((shifted / "train" / part).iterdir())[:count]:
            (tmp_path / part / path.name).symlink_to(path)
    settings = [
        *("--images", tmp_path / "images", "--masks", tmp_path / "masks"),
        *("--val-images", shifted / "val" / "images", "--val-masks", shifted / "val" / "masks"),
        *("--min-epoch-images", 120, "--epochs", 8),
    ]
    tuned = camox(*settings, "--init-from", start, "--lr", 1e-3, "--checkpoint-dir", tmp_path / "tuned")
    scratch = camox(*settings, "--checkpoint-dir", tmp_path / "scratch")
    rows = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    first = next(row["iou"] for row in rows if row["event"] == "epoch")
    best = read_checkpoint(tmp_path / "tuned" / "best_model.pth")["scores"]["iou"]

    print(f"{count} images: start {first:.3f}, tuned {best:.3f}, scratch {scratch['validation']['iou']:.3f}")
    assert best >= first
    assert tuned["validation"]["iou"] > scratch["validation"]["iou"] + 0.05
