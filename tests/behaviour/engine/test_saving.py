"""What a run does where the disk is full."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.checkpoints.format import CheckpointNotWritten, read_checkpoint, write_checkpoint
from camoxpert_cli.commands.training_outcome import print_outcome
from camoxpert_cli.engine import saving as saving_module
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.train import train
from camoxpert_cli.errors import TrainingError
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.tiny_data import tiny_plan

SETTINGS: dict[str, Any] = {"epochs": 4, "stage1_epochs": 4}


def full_where(monkeypatch: pytest.MonkeyPatch, is_full: Callable[[Path, int], bool]) -> None:
    """The disk is full for the writes that `is_full` says: of which file, and the how manieth of it (from 1)."""
    written: dict[str, int] = {}

    def write(path: Path, content: Any, keep_as: Path | None = None) -> None:
        written[path.name] = written.get(path.name, 0) + 1
        if is_full(path, written[path.name]):
            raise CheckpointNotWritten(f"{path} cannot be written: No space left on device", "free some space")
        write_checkpoint(path, content, keep_as)

    monkeypatch.setattr(saving_module, "write_checkpoint", write)


def test_full_for_a_while(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training goes on where the disk is full, and the next save that succeeds has everything."""
    full_where(monkeypatch, lambda path, count: path.name == "last.pth" and count in (1, 2))
    folder = train(tiny_plan(tiny_data, tmp_path / "run", **SETTINGS)).folder
    said = capsys.readouterr().err

    assert said.count("No space left on device; training goes on, and the next save tries again") == 2
    assert read_checkpoint(folder.last)["epoch"] == 4
    assert len(json.loads(folder.history.read_text())) == 4


def test_full_to_the_end(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the last save fails, results are written, last.pth is the last that was, and the end is an error."""
    full_where(monkeypatch, lambda path, count: path.name == "last.pth" and count > 2)
    outcome = train(tiny_plan(tiny_data, tmp_path / "run", **SETTINGS))
    with pytest.raises(CheckpointNotWritten, match="No space left on device") as caught:
        print_outcome(outcome)

    assert caught.value.exit_code == 4
    assert "test TINY" in capsys.readouterr().out  # the scores are told all the same
    assert Outcome.from_mapping(json.loads(json.dumps(outcome.to_mapping()))).unsaved == outcome.unsaved
    assert (tmp_path / "run" / "results.json").exists()
    assert read_checkpoint(tmp_path / "run" / "last.pth")["epoch"] == 2


def test_best_weights_that_cannot_be_written(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An epoch whose weights could not be kept is not called the best: the file and the summary agree."""
    scores = iter([0.1, 0.3, 0.2, 0.2])
    monkeypatch.setattr(train_module, "validate", lambda run: Scores({"iou": next(scores), "dice": 0.0, "mae": 1.0}))
    full_where(monkeypatch, lambda path, count: path.name == "best_model.pth" and count == 2)
    folder = train(tiny_plan(tiny_data, tmp_path / "run", **SETTINGS)).folder
    best, results = read_checkpoint(folder.best), json.loads(folder.results.read_text())

    assert "training goes on with the best weights before these" in capsys.readouterr().err
    assert (best["epoch"], best["scores"]["iou"]) == (3, 0.2)
    assert results["epoch"] == 3


def test_no_weights_at_all(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run none of whose weights could be kept ends with that, not in the middle of its summary."""
    full_where(monkeypatch, lambda path, count: True)
    with pytest.raises(TrainingError, match="no weights could be kept") as caught:
        train(tiny_plan(tiny_data, tmp_path / "run", **SETTINGS))

    assert caught.value.exit_code == 6


def test_too_little_space_is_told_before_training(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that cannot hold three checkpoints is refused before the first step."""
    asked: list[int] = []

    def refuse(self: RunFolder, size: int) -> None:
        asked.append(size)
        raise TrainingError("too little")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "require_space", refuse)
        with pytest.raises(TrainingError, match="too little"):
            train(tiny_plan(tiny_data, tmp_path / "run", **SETTINGS))
    folder = train(tiny_plan(tiny_data, tmp_path / "run", epochs=2, stage1_epochs=0, progressive_unfreeze=False)).folder

    # The estimate leaves out what is small: names, settings, history.
    assert folder.last.stat().st_size == pytest.approx(asked[0] / 3, rel=0.1)
