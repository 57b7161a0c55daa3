"""What a process tells its launcher of how a run came out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.run_folder import RunFolder


@pytest.mark.parametrize(
    "outcome",
    [
        {"results": {"epoch": 3, "validation": {"iou": 0.5}}},
        {"stop": Stop("stopped by the time limit of 1h", 0), "unsaved": ("the disk is full", "free some space")},
    ],
    ids=["complete", "cut"],
)
def test_the_launcher_hears_all(outcome: dict[str, object]) -> None:
    """Results, why it ended early and why the last save failed are what they were, through JSON."""
    config = resolve("quickstart", {"train.lr": "0.5"}).config
    told = Outcome(RunFolder(Path("runs/x")), config, 3, 24, 1.5, generated=True, **outcome)  # type: ignore[arg-type]
    heard = Outcome.from_mapping(json.loads(json.dumps(told.to_mapping())))

    assert heard.folder.path == told.folder.path
    assert heard == Outcome(**{**vars(told), "folder": heard.folder})
