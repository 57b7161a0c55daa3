"""What a run writes down at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.engine import baselines, closing
from camoxpert_cli.engine.build import RunData
from camoxpert_cli.engine.closing import close_run
from camoxpert_cli.engine.reporter import Reporter
from camoxpert_cli.metrics.baselines import all_foreground_iou
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder


def write_pair(folder: Path, name: str, rows: int) -> Pair:
    """An image of 8 rows, so many of which its mask marks."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:rows] = 255
    image, path = folder / f"{name}.png", folder / f"{name}-mask.png"
    cv2.imwrite(str(image), mask)
    cv2.imwrite(str(path), mask)
    return Pair(name, image, path)


@pytest.mark.parametrize("generated", [True, False])
def test_baselines_are_of_the_held_out_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generated: bool) -> None:
    """Those on which the network is scored beside them, and only where camox made the images."""
    train, held_out = write_pair(tmp_path, "train", 8), write_pair(tmp_path, "held-out", 2)
    progress = SimpleNamespace(seconds=12.34, target_seconds=3.5, epoch=4)
    run: Any = SimpleNamespace(
        state=SimpleNamespace(progress=progress),
        early_stop="no better validation IoU for 2 epochs, best in epoch 2",
        data=RunData((), [train], [held_out], {}, generated),
        config=resolve("quickstart", {"run.target_iou": "0.5"}).config,
        folder=RunFolder(tmp_path),
        reporter=Reporter(RunFolder(tmp_path), data=None, state=None),  # type: ignore[arg-type]
        world=replace(World(), rank=0),
    )
    scored = [SimpleNamespace(name=name, to_json=lambda name=name: {"set": name}) for name in ("validation", "CAMO")]
    evaluation = SimpleNamespace(about={"epoch": 2}, sets=scored)
    monkeypatch.setattr(closing, "score_best", lambda run: evaluation)
    monkeypatch.setattr(closing, "write_pages", lambda run, evaluation: None)
    monkeypatch.setattr(baselines, "BASELINES", {"all foreground": all_foreground_iou})

    assert close_run(run) == {
        "epoch": 2,
        "validation": {"set": "validation"},
        "tests": {"CAMO": {"set": "CAMO"}},
        "baselines": {"all foreground": 0.25} if generated else {},
        "epochs": 4,
        "early_stop": "no better validation IoU for 2 epochs, best in epoch 2",
        "seconds": 12.3,
        "target_iou": 0.5,
        "seconds_to_target": 3.5,
    }
