"""What `camox status` prints and exits with."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.written_runs import (
    settings,
    write_begun,
    write_best,
    write_last,
    write_log,
    write_results,
    write_settings,
)

FLAG = "--unfinished-exit-code"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run in its third epoch, after six of eight images and a save at four."""
    monkeypatch.setattr("camoxpert_cli.status.run_status.is_in_use", lambda folder: False)
    run = write_begun(tmp_path / "run")
    write_last(run.last, 2, 4)
    write_log(run.path, 2, 6)
    return run


def camox(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["status", *map(str, arguments)])


def lines(run: RunFolder) -> dict[str, str]:
    outcome = camox(run.path)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stderr == ""
    return {line[:17].strip(): line[17:] for line in outcome.stdout.splitlines()}


def complete(run: RunFolder) -> None:
    write_last(run.last, 6, 0)
    write_best(run.best, 6)
    write_results(run.path)


def test_a_run_that_was_cut(run: RunFolder) -> None:
    """Every line has a title, in columns."""
    write_settings(run.path, settings(run.path, run__time_limit="11h30m", run__session_limit="12h"))
    os.utime(run.metrics, (time.time() - 7200, time.time() - 7200))
    os.utime(run.last, (time.time() - 3600, time.time() - 3600))
    run.previous.write_bytes(b"")

    assert lines(run) == {
        "Run folder": str(run.path),
        "Status": "unfinished, not running on this machine",
        "Position": "epoch 3 of 6, stage 1, 6 of 8 images into it",
        "Last activity": "1h ago",
        "Best": "validation IoU 0.2000, epoch 2",
        "Training time": "25s",
        "Remaining": ">35s",
        "Limits": "time limit 11h30m, session limit 12h",
        "Saved": "last.pth, 4 images into epoch 3; resuming from it repeats 2 images",
        "last.pth": "0 MiB, 1h ago, intact",
        "previous.pth": "0 MiB, 0s ago, damaged (empty)",
        "Next": f"camox resume {run.path}",
    }


def test_complete(run: RunFolder) -> None:
    """There is nothing left to say of what remains."""
    complete(run)
    found = lines(run)

    assert (found["Status"], found["Position"]) == ("complete", "6 epochs complete")
    assert found["Next"] == f"camox predict {run.best} IMAGE... --out predictions"
    assert not {"Remaining", "Limits", "Saved"} & found.keys()


@pytest.mark.parametrize(
    ("running", "said"),
    [(True, "unfinished, running"), (False, "unfinished, not running on this machine"), (None, "unfinished")],
)
def test_running(run: RunFolder, monkeypatch: pytest.MonkeyPatch, running: bool | None, said: str) -> None:
    """Where the system does not say, nothing is said."""
    monkeypatch.setattr("camoxpert_cli.status.run_status.is_in_use", lambda folder: running)

    assert lines(run)["Status"] == said


def test_stations(run: RunFolder) -> None:
    """Nothing saved, all saved, whole epochs to repeat, trained without scores, no settings."""
    write_last(run.last, 2, 6)
    all_saved = lines(run)["Saved"]
    write_last(run.last, 1, 4)
    epochs = lines(run)["Saved"]
    write_last(run.last, 6, 0)
    trained = lines(run)
    run.last.write_bytes(b"PK")
    damaged = lines(run)
    (run.path / "config.yaml").unlink()
    unknown = lines(run)
    run.last.unlink()
    nothing = lines(run)

    assert all_saved == "last.pth, up to this position"
    assert epochs == "last.pth, 4 images into epoch 2; resuming from it repeats 10 images"
    assert trained["Status"] == "unfinished, not running on this machine, trained, but not scored"
    assert trained["Remaining"] == "0s"
    assert damaged["Saved"] == "nothing from which the run can be resumed"
    assert damaged["Next"] == "start a new run in another folder"
    assert (unknown["Position"], unknown["Remaining"]) == ("epoch 3, 6 of 8 images into it", UNKNOWN)
    assert (nothing["Saved"], nothing["Next"]) == ("nothing yet", "camox train")


UNKNOWN = "not known before an epoch is complete"


def test_no_command(run: RunFolder, tmp_path: Path) -> None:
    """A run that Python started is started by Python again; of a complete one the best weights may be gone."""
    begun = lines(write_begun(tmp_path / "other", command=["train.py"]))
    complete(run)
    run.best.unlink()

    assert begun["Next"] == "start it again, as it was started"
    assert lines(run)["Next"] == "nothing: the best weights are no longer here"


def test_epochs_to_repeat_of_unknown_length(run: RunFolder) -> None:
    """Where the log does not show how many images an epoch has, epochs are counted."""
    write_last(run.last, 1, 0)
    run.metrics.write_text(json.dumps({"event": "epoch", "epoch": 2}))

    assert lines(run)["Saved"] == "last.pth, 0 images into epoch 2; resuming from it repeats 1 epoch"


@pytest.mark.parametrize(("more", "code"), [([], 0), ([FLAG, "0"], 0), ([FLAG, "85"], 85), ([FLAG, "255"], 255)])
def test_exit_codes(run: RunFolder, more: list[str], code: int) -> None:
    """Of a run that is not complete the code that was asked for, after the same output; of one that is, 0."""
    cut, as_json = camox(run.path, *more), camox(run.path, "--json", "--quiet", *more)
    complete(run)
    whole = camox(run.path, *more)

    assert (cut.exit_code, as_json.exit_code, whole.exit_code) == (code, code, 0)
    assert "camox resume" in cut.stdout
    assert (cut.stderr, as_json.stderr, whole.stderr) == ("", "", "")


def test_json(run: RunFolder) -> None:
    """It is one object and nothing else; of the folder above the same."""
    found = json.loads(camox(run.path, "--json").stdout)

    assert (found["complete"], found["running"], found["epoch"], found["samples"]) == (False, False, 2, 6)
    assert json.loads(camox(run.path.parent, "--json").stdout) == found


def test_no_run(tmp_path: Path) -> None:
    """Exit code 2, whatever was asked for of an unfinished run, with what was expected and how one begins."""
    outcome = camox(tmp_path, FLAG, "85")
    said = " ".join(outcome.stderr.split())

    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert said.startswith(f"Error: {tmp_path} contains no run, expected a run folder with config.yaml, metrics.jsonl ")
    assert f"Try: camox train --checkpoint-dir {tmp_path} --dataset-path DATA" in said


@pytest.mark.parametrize("text", ["256", "-1", "many"])
def test_what_is_no_exit_code(run: RunFolder, text: str) -> None:
    """It is refused as by other commands."""
    assert camox(run.path, FLAG, text).exit_code == 2
