"""`camox resume` at every end that tests/behaviour/test_resume.py has one of: damaged files, best weights, paths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.checkpoints.format import read_checkpoint, write_checkpoint
from camoxpert_cli.engine import saving as saving_module
from camoxpert_cli.engine.train import train
from camoxpert_cli.run_folder import RunFolder
from tests.behaviour.test_resume import camox, cut_back, needs_originals
from tests.helpers.checkpoints import flip_a_byte, write_content
from tests.helpers.places import COMPAT
from tests.helpers.tiny_data import tiny_plan

SETTINGS: dict[str, Any] = {"epochs": 3, "stage1_epochs": 1, "batch_size": 4, "stage2_batch_size": 2, "save_every": "1"}


@pytest.fixture(scope="module")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of three epochs. Read it, but change nothing in it."""
    return train(tiny_plan(tiny_data, tmp_path_factory.mktemp("finished") / "run", **SETTINGS)).folder.path


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy to work on."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("how", ["folder", "file", "another spelling"])
def test_a_damaged_one_never_takes_the_good_ones_place(
    run_folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Going on from previous.pth, no save makes the damaged file the one before; the end is that of the run whole."""
    flip_a_byte(run_folder / "last.pth")
    monkeypatch.chdir(run_folder.parent)
    source = {"folder": run_folder, "file": run_folder / "previous.pth", "another spelling": run_folder}[how]
    folder = ["--checkpoint-dir", run_folder.name] if how == "another spelling" else []
    before = (run_folder / "previous.pth").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(saving_module, "write_checkpoint", watching(before, run_folder))
        outcome = camox("resume", source, *folder)

    assert outcome.exit_code == 0, outcome.output
    for name in ("last.pth", "previous.pth"):
        read_checkpoint(run_folder / name)
    network, expected = (read_checkpoint(folder / "last.pth")["network"] for folder in (run_folder, finished))
    assert all(torch.equal(network[name], value) for name, value in expected.items())


def watching(previous: bytes, folder: Path) -> Any:
    """A `write_checkpoint` after whose first call `previous.pth` must still be what it was."""
    calls = []

    def write(path: Path, content: Any, keep_as: Path | None = None) -> None:
        write_checkpoint(path, content, keep_as)
        if path.name == "last.pth":
            calls.append(path)
            assert len(calls) > 1 or (folder / "previous.pth").read_bytes() == previous

    return write


def test_best_weights_that_are_damaged(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged best_model.pth is named, and the best is sought among the epochs to come."""
    content = read_checkpoint(run_folder / "last.pth")
    content["epoch"] = 2
    content["training"]["progress"].update(epoch=2, samples=0, history=content["training"]["progress"]["history"][:2])
    write_content(run_folder / "last.pth", content)
    flip_a_byte(run_folder / "best_model.pth")
    outcome = camox("resume", run_folder)

    assert outcome.exit_code == 0, outcome.output
    assert "the best weights are chosen only from the epochs that follow" in outcome.stderr
    assert read_checkpoint(run_folder / "best_model.pth")["epoch"] == 3


def test_best_weights_of_what_is_done_again(run_folder: Path) -> None:
    """Gone back before the epoch of best_model.pth, a run does not take it for an earlier epoch's."""
    content = read_checkpoint(run_folder / "last.pth")
    progress = content["training"]["progress"]
    rows = progress["history"][:2]
    best = max(rows, key=lambda row: row["iou"])
    content["epoch"] = 2
    progress.update(epoch=2, samples=0, history=rows, best_epoch=best["epoch"], best_iou=best["iou"])
    write_content(run_folder / "last.pth", content)
    later = read_checkpoint(run_folder / "best_model.pth")
    later["scores"] = {**later["scores"], "epoch": 3, "iou": 0.9}
    write_content(run_folder / "best_model.pth", later)
    outcome = camox("resume", run_folder)
    results = json.loads((run_folder / "results.json").read_text())
    kept = read_checkpoint(run_folder / "best_model.pth")["scores"]

    assert outcome.exit_code == 0, outcome.output
    assert "does not contain this run's best weights" in outcome.stderr
    assert (kept["epoch"], kept["iou"]) == (results["epoch"], results["validation"]["iou"])


def test_history_of_the_best_weights(run_folder: Path) -> None:
    """Gone on from best_model.pth, the epochs before it stay in the history."""
    content = read_checkpoint(run_folder / "last.pth")
    del content["training"]
    content["scores"] = content["history"][-1]
    write_content(run_folder / "best_model.pth", content)
    for name in ("last.pth", "previous.pth"):
        (run_folder / name).unlink()
    outcome = camox("resume", run_folder, "--epochs", 4)

    assert outcome.exit_code == 0, outcome.output
    assert [row["epoch"] for row in json.loads((run_folder / "history.json").read_text())] == [1, 2, 3, 4]


def test_relative_paths_lead_home(
    run_folder: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set given by a relative path is found from another folder too."""
    monkeypatch.chdir(tiny_data.parent)
    train(tiny_plan(Path(tiny_data.name), tmp_path / "relative", epochs=1))
    monkeypatch.chdir(tmp_path)
    outcome = camox("resume", tmp_path / "relative", "--epochs", 2)

    assert outcome.exit_code == 0, outcome.output


def test_what_changes_is_said(run_folder: Path) -> None:
    """Each change is told with what it means; what breaks exactness is a warning."""
    cut_back(run_folder)
    outcome = camox("resume", run_folder, "--num-workers", 1, "--set", "train.lr=0.002", "--batch-size", 2)

    assert outcome.exit_code == 0, outcome.output
    assert "Warning: changed train.lr 0.001 -> 0.002: from here on, this is no longer the run" in outcome.stderr
    assert "Changed train.batch_size 4 -> 2: the same images per optimizer step in the same order" in outcome.stderr
    assert "Changed data.num_workers 0 -> 1: does not affect the result" in outcome.stderr


def test_read_only_folder(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a read-only mount the run goes on in a new folder, best weights included; the source stays as it is."""
    cut_back(run_folder)
    before = {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()}
    monkeypatch.setattr(RunFolder, "is_writable", lambda self: False)
    monkeypatch.chdir(tmp_path)
    outcome = camox("resume", run_folder)
    (new,) = (tmp_path / "runs").iterdir()

    assert outcome.exit_code == 0, outcome.output
    assert {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()} == before
    assert new.name.startswith("run-")
    assert read_checkpoint(new / "last.pth")["epoch"] == 3
    assert (new / "best_model.pth").exists()
    assert [row["epoch"] for row in json.loads((new / "history.json").read_text())] == [1, 2, 3]


@needs_originals
@pytest.mark.parametrize("name", ["camoxpert_xxs_7experts.pth", "camoxpert_xxs_7experts_module_prefix.pth"])
def test_from_the_original_program(name: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that its file began goes on to the end."""
    monkeypatch.chdir(tmp_path)
    common = ["resume", COMPAT / name, "--dataset-path", tiny_data, "--device", "cpu", "--num-workers", 0]
    short = ["train.epochs=19", "train.stage1_epochs=19", "train.warmup_epochs=0", "data.img_size=64"]
    outcome = camox(*common, "--checkpoint-dir", "run", *(each for text in short for each in ("--set", text)))

    assert outcome.exit_code == 0, outcome.output
    assert "contains only weights; the optimizer, gradient scaler" in outcome.stderr
    assert [row["epoch"] for row in json.loads(Path("run/history.json").read_text())] == [19]
