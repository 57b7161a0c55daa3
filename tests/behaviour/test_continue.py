"""`camox train --continue`: the same command, run again."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.cut_runs import differing
from tests.helpers.processes import train_command
from tests.helpers.tiny_data import PLAIN, tiny_run


def train(data: Path, folder: Path, *more: str, **settings: Any) -> Any:
    command = train_command(tiny_run(data, folder, **{**PLAIN, **settings}))[3:]
    return CliRunner().invoke(app, [*command, "--continue", *more])


def copy_of(run: RunFolder, folder: Path) -> Path:
    """The run as it was when it had saved for the last time but one."""
    shutil.copytree(run.path, folder)
    (folder / "previous.pth").replace(folder / "last.pth")
    (folder / "results.json").unlink()
    return folder


def test_an_unfinished_run(tiny_data: Path, plain_run: RunFolder, tmp_path: Path) -> None:
    """It ends as if it had never been interrupted, and what each checkpoint says of its start stays."""
    folder = copy_of(plain_run, tmp_path / "run")
    done = train(tiny_data, folder)
    start = read_checkpoint(plain_run.last)["start"]

    assert done.exit_code == 0, done.output
    assert f"Continuing the run in {folder} (--continue)" in " ".join(done.stderr.split())
    assert differing(folder, plain_run.path) == []
    assert start["as_given"] == {
        **to_mapping(tiny_run(tiny_data, plain_run.path, **PLAIN).config),
        "run": {**start["as_given"]["run"], "checkpoint_dir": str(plain_run.path)},
    }
    assert [read_checkpoint(folder / name)["start"] for name in ("last.pth", "best_model.pth")] == [start] * 2


@pytest.mark.parametrize("elsewhere", [False, True], ids=["from scratch", "from a checkpoint"])
def test_killed_before_the_first_step(
    tiny_data: Path, plain_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """All that the run needs has been saved, and the same command ends as if nothing had happened."""
    folder, source = tmp_path / "run", {}
    if elsewhere:
        source = {"resume_from": str(copy_of(plain_run, tmp_path / "source") / "last.pth")}
    with monkeypatch.context() as patch:
        patch.setattr("camoxpert_cli.engine.train.train_epochs", lambda run: sys.exit(9))
        assert train(tiny_data, folder, **source).exit_code == 9
    progress = read_checkpoint(folder / "last.pth")["training"]["progress"]
    assert (progress["epoch"], progress["samples"]) == ((1, 6) if elsewhere else (0, 0))
    done = train(tiny_data, folder, **source)

    assert done.exit_code == 0, done.output
    assert f"Continuing the run in {folder} (--continue)" in " ".join(done.stderr.split())
    # The log of a run that began elsewhere stayed there.
    assert differing(folder, plain_run.path) == (["log"] if elsewhere else [])


def test_a_complete_run(tiny_data: Path, plain_run: RunFolder, tmp_path: Path) -> None:
    """Its results are printed again, as a table and as JSON; nothing in the folder is touched."""
    folder = tmp_path / "run"
    shutil.copytree(plain_run.path, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    table, as_json = train(tiny_data, folder), train(tiny_data, folder, "--json")
    results = json.loads((folder / "results.json").read_text())

    assert (table.exit_code, as_json.exit_code) == (0, 0), table.output
    assert f"{results['validation']['iou']:.4f}" in table.stdout
    assert "img/s" not in table.stderr
    assert json.loads(as_json.stdout) == {"complete": True, "run_folder": str(folder), **results}
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_another_run(tiny_data: Path, plain_run: RunFolder, tmp_path: Path) -> None:
    """It is refused, with what differs, and nothing is changed."""
    folder = copy_of(plain_run, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = train(tiny_data, folder, lr=0.5)

    assert done.exit_code == 2
    assert "train.lr is 0.001 there and 0.5 in this command" in " ".join(done.stderr.split())
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_nothing_there(tiny_data: Path, plain_run: RunFolder, tmp_path: Path) -> None:
    """The run starts, and is the one that the same command without --continue makes."""
    done = train(tiny_data, tmp_path / "run")

    assert done.exit_code == 0, done.output
    assert differing(tmp_path / "run", plain_run.path) == []
