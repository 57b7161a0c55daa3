"""Runs that end once their validation IoU has not improved for some epochs."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.engine.train import train
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.cut_runs import differing, history
from tests.helpers.processes import run, train_command
from tests.helpers.ranks import in_ranks
from tests.helpers.run_files import read_json
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import TEST_SET, tiny_plan, tiny_run

# Nothing is learned in stage 2, but BatchNorm's statistics: each of its epochs finds less than the first epoch did.
STUCK: dict[str, Any] = {
    **{"epochs": 6, "stage1_epochs": 1, "progressive_unfreeze": False, "save_every": "1", "patience": 2},
    **{"lr": 0.0, "stage2_lr": 0.0, "min_lr": 0.0},
}
WHY = "no better validation IoU for 2 epochs, best in epoch 1"


@pytest.fixture(scope="module")
def stopped(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of which 3 of 6 epochs were enough. Read it, but change nothing in it."""
    return train(tiny_plan(tiny_data, tmp_path_factory.mktemp("stopped") / "run", **STUCK)).folder


def camox(*arguments: object) -> Any:
    outcome = CliRunner().invoke(app, [str(each) for each in arguments])
    assert outcome.exit_code == 0, outcome.output
    return outcome


def words(text: str) -> str:
    return " ".join(text.split())


def copy_of(run: RunFolder, folder: Path) -> Path:
    return Path(shutil.copytree(run.path, folder))


def test_it_is_complete(stopped: RunFolder) -> None:
    """It is scored as any run that had all its epochs, and says why it had not."""
    results, rows = read_json(stopped.results), history(stopped.path)
    found = json.loads(camox("status", stopped.path, "--json").stdout)

    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert max(rows[1:], key=lambda row: row["iou"])["iou"] <= rows[0]["iou"]
    assert (results["epoch"], results["epochs"], results["early_stop"]) == (1, 3, WHY)
    assert set(results["tests"]) == {TEST_SET}
    assert (found["complete"], found["epoch"], found["epochs"], found["early_stop"]) == (True, 3, 6, WHY)
    assert (found["stage"], found["seconds_left"]) == (None, 0.0)
    assert (
        f"Status           complete: {WHY}\nPosition         3 of 6 epochs complete"
        in camox("status", stopped.path).stdout
    )


@pytest.mark.parametrize("cut", ["after the last save", "within the last epoch"])
def test_a_resumed_run_ends_where_it_would_have(stopped: RunFolder, tmp_path: Path, cut: str) -> None:
    """Killed before it was scored, or earlier: history, weights and the epoch of its end are the same."""
    folder = copy_of(stopped, tmp_path / "run")
    (folder / "results.json").unlink()
    if cut == "within the last epoch":
        (folder / "previous.pth").replace(folder / "last.pth")
    done = camox("resume", folder)

    assert differing(folder, stopped.path) == []
    assert read_json(folder / "results.json")["early_stop"] == WHY
    assert f"Early stop       {WHY}" in done.stderr
    assert "epoch 1 of 3" in done.stderr
    assert ("Training is complete" in done.stderr) == (cut == "after the last save")


def test_killed_while_its_patience_ends(tiny_data: Path, stopped: RunFolder, tmp_path: Path) -> None:
    """A run that is killed in its third epoch, and resumed, ends after it, with the same history."""
    folder = tmp_path / "run"
    command = train_command(tiny_run(tiny_data, folder, **STUCK))
    code, output = run(command, RANK="0", **sabotage(tmp_path / "site", 0, 7, kill("self", "SIGKILL")))
    assert code == -signal.SIGKILL, output
    assert [row["epoch"] for row in history(folder)] == [1, 2]
    done = camox("resume", folder)

    assert differing(folder, stopped.path) == []
    assert f"Early stop       {WHY}" in done.stderr


def test_run_again(tiny_data: Path, stopped: RunFolder, tmp_path: Path) -> None:
    """The same command prints the results; one with another patience is another run."""
    folder = copy_of(stopped, tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    command = train_command(tiny_run(tiny_data, folder, **STUCK))[3:]
    done = camox(*command, "--continue")
    other = CliRunner().invoke(app, [*command, "--continue", "--patience", "3"])

    assert f"{read_json(folder / 'results.json')['validation']['iou']:.4f}" in done.stdout
    assert "epoch 1 of 3" in done.stderr
    assert f"camox resume {folder} --patience 4" in words(done.stderr)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert other.exit_code == 2
    assert "train.patience is 2 there and 3 in this command" in words(other.stderr)


def test_a_larger_patience(stopped: RunFolder, tmp_path: Path) -> None:
    """The run goes on, as one that had it from the start; more epochs alone do not continue it."""
    folder = copy_of(stopped, tmp_path / "run")
    more_epochs = camox("resume", folder, "--dry-run", "--epochs", "9").stdout
    done = camox("resume", folder, "--patience", "3")

    assert f"training is complete (3 of 9 epochs: {WHY}; a larger --patience continues it)" in more_epochs
    assert "Changed train.patience 2 -> 3: only decides how soon the run ends" in words(done.stderr)
    assert [row["epoch"] for row in history(folder)] == [1, 2, 3, 4]
    assert read_json(folder / "results.json")["early_stop"] == WHY.replace("2 epochs", "3 epochs")


def train_stuck(world: World, data: Path, folder: Path) -> tuple[int, float]:
    outcome = train(tiny_plan(data, folder, **STUCK, gpus=2), world)
    return outcome.epochs, outcome.images


def test_two_processes_end_together(tiny_data: Path, tmp_path: Path) -> None:
    """Neither waits for the other to train on, and the results are written."""
    assert in_ranks(2, train_stuck, tiny_data, tmp_path / "run") == [(3, 24), (3, 24)]
    assert read_json(tmp_path / "run" / "results.json")["early_stop"] == WHY
