"""Two processes that want the same run folder: one has it, and the other changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.errors import UsageError
from camoxpert_cli.launch import workers
from camoxpert_cli.launch.start import start as start_run
from camoxpert_cli.launch.workers import Attempt
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.processes import camox, finish, run, start, train_command, wait_for
from tests.helpers.tiny_data import tiny_run

ONE_EPOCH: dict[str, Any] = {"epochs": 1, "stage1_epochs": 1, "num_experts": 1, "warmup_epochs": 0}


def held_up(command: list[str], place: str, at: Path) -> subprocess.Popen[str]:
    """`command` in a process that makes a file `at` when it comes to `place`, and waits there until that is gone."""
    module, name = place.rsplit(".", 1)
    script = f"""
import importlib, sys, time
from pathlib import Path

module, at = importlib.import_module({module!r}), Path({str(at)!r})
before = module.{name}

def waiting(*arguments, **named):
    at.touch()
    while at.exists():
        time.sleep(0.01)
    return before(*arguments, **named)

module.{name} = waiting
sys.argv = ["camox", *{command[3:]!r}]
from camoxpert_cli.app import main
main()
"""
    process = start([sys.executable, "-c", script])
    wait_for(at.exists, process)
    return process


def let_go(process: subprocess.Popen[str], at: Path) -> tuple[int, str]:
    at.unlink()
    return finish(process)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_start_while_another_makes_ready(tiny_data: Path, tmp_path: Path) -> None:
    """Whoever comes second is refused before the first has written anything, and the first ends well."""
    at, folder = tmp_path / "waiting", tmp_path / "run"
    command = train_command(tiny_run(tiny_data, folder, **ONE_EPOCH))
    first = held_up(command, "camoxpert_cli.engine.run.build_network", at)
    code, output = run(command)
    assert code == 2, output
    assert f"another process is using the run folder {folder}" in output
    assert contents(folder) == {}

    code, output = let_go(first, at)
    assert code == 0, output
    assert (folder / "results.json").exists()


def test_pictures_of_a_run_at_work(tmp_path: Path) -> None:
    """A second quickstart in the same folder leaves the first one's pictures alone, with other settings too."""
    at, folder = tmp_path / "waiting", tmp_path / "run"
    chosen = {"dataset_path": [], "generated_images": 4, **ONE_EPOCH}
    first = held_up(train_command(tiny_run(tmp_path, folder, **chosen)), "camoxpert_cli.engine.run.build_network", at)
    before = contents(folder)
    assert len(before) == 2 * (4 + 60) + 1
    code, output = run(train_command(tiny_run(tmp_path, folder, **{**chosen, "generated_images": 5})))
    first.kill()
    finish(first)

    assert code == 2, output
    assert contents(folder) == before


def test_a_resume_of_a_run_at_work(run_copy: Path, tmp_path: Path) -> None:
    """A run that goes on is in hand from before its data are read."""
    at = tmp_path / "waiting"
    command = camox("resume", str(run_copy), "--epochs", "3")
    first = held_up(command, "camoxpert_cli.engine.run.open_data", at)
    before = contents(run_copy)
    code, output = run(command)
    first.kill()
    finish(first)

    assert code == 2, output
    assert "another process is using the run folder" in output
    assert contents(run_copy) == before


def test_starts_within_a_second(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that nobody named have folders of their own, whenever they start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *_: "20261123-184500")
    folders = []
    for _ in range(2):
        resolved = tiny_run(tiny_data, tmp_path, **{**ONE_EPOCH, "checkpoint_dir": None})
        with pytest.MonkeyPatch.context() as patched:

            def train(plan: Any, *_: Any) -> Any:
                folders.append(plan.folder)
                RunFolder(plan.folder).metrics.touch()
                raise UsageError("stopped by this test")

            patched.setattr("camoxpert_cli.engine.train.train", train)
            with pytest.raises(UsageError, match="stopped by this test"):
                start_run(resolved)

    assert [folder.name for folder in folders] == ["train-20261123-184500", "train-20261123-184500-2"]


def test_nothing_is_left_of_a_start_that_was_refused(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made only to be locked is taken away again."""
    monkeypatch.chdir(tmp_path)
    for folder in (None, str(tmp_path / "deep" / "run")):
        with pytest.raises(UsageError):
            start_run(tiny_run(tiny_data, tmp_path, checkpoint_dir=folder, sync_batchnorm=True))

    assert list(tmp_path.iterdir()) == []


def test_a_launcher_keeps_the_folder(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its workers are at work, and between two attempts, nobody else gets the folder; the workers do."""
    folder = tmp_path / "run"
    tried = []

    def run_workers(*arguments: object, **rest: object) -> Attempt:
        with pytest.raises(UsageError, match="another process is using"), RunFolder(folder).locked():
            pass
        with RunFolder(folder).locked(shared=True):
            tried.append(folder)
        return Attempt(UsageError("stopped by this test"))

    monkeypatch.setattr(workers, "run_workers", run_workers)
    with pytest.raises(UsageError, match="stopped by this test"):
        start_run(tiny_run(tiny_data, folder, gpus=2))

    assert tried == [folder]
