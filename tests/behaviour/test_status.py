"""`camox status` of real runs: at work, killed, complete, and after torchrun."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.run_folder import RunFolder
from tests.behaviour.test_processes import SHORT, the_message, train
from tests.behaviour.test_two_starts import held_up
from tests.behaviour.test_unfinished import FLAG, TWO
from tests.helpers.processes import camox, finish, run, train_command
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import tiny_run

needs_locks = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists its locks")


def status(folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    outcome = CliRunner().invoke(app, ["status", str(folder), "--json", *more])
    return outcome.exit_code, json.loads(outcome.stdout)


def test_complete(plain_run: RunFolder) -> None:
    """All numbers are those of the run's own files, and every checkpoint is intact."""
    code, found = status(plain_run.path, FLAG, "85")
    progress = read_checkpoint(plain_run.last)["training"]["progress"]
    expected = {
        **{"complete": True, "epoch": 2, "epochs": 2, "samples": 0, "images": 8, "stage": None},
        **{"best_epoch": progress["best_epoch"], "best_iou": progress["best_iou"], "seconds_left": 0.0},
        **{"checkpoint": "last.pth", "lower_bound": False},
    }

    assert code == 0
    assert {key: found[key] for key in expected} == expected
    assert found["seconds"] == pytest.approx(sum(row["seconds"] for row in progress["history"]), abs=0.1)
    assert {name: (each["intact"], each["epoch"], each["samples"]) for name, each in found["checkpoints"].items()} == {
        "last.pth": (True, 2, 0),
        "previous.pth": (True, 1, 6),
        "best_model.pth": (True, progress["best_epoch"], None),
    }


def test_nothing_is_changed(run_copy: Path) -> None:
    """Not a byte and not a time, nor does it keep a run from starting."""
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run_copy.rglob("*") if path.is_file()}
    folder_before = run_copy.stat().st_mtime_ns
    with RunFolder(run_copy).locked():
        code, _ = status(run_copy)

    assert code == 0
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    assert run_copy.stat().st_mtime_ns == folder_before
    assert len(list(run_copy.iterdir())) == len(before)


@needs_locks
def test_at_work(tiny_data: Path, tmp_path: Path) -> None:
    """From before it has written anything, through its epochs, until it is killed and after that."""
    at, folder = tmp_path / "waiting", tmp_path / "run"
    command = train_command(tiny_run(tiny_data, folder, **{**SHORT, "epochs": 2, "stage1_epochs": 2}, save_every="2"))
    process = held_up(command, "camoxpert_cli.engine.training_steps.optimizer_step", at)
    _, begun = status(folder)
    found = begun
    epochs: list[tuple[int, int]] = []
    busy: list[tuple[bool, bool]] = []
    while (len(set(epochs)) < 3 or not found["checkpoints"]) and process.poll() is None:
        at.unlink(missing_ok=True)
        _, found = status(folder)
        epochs.append((found["epoch"], found["samples"]))
        busy.append((found["running"], found["complete"]))
        assert all(each["intact"] for each in found["checkpoints"].values())
    process.kill()
    finish(process)
    code, killed = status(folder, FLAG, "85")

    assert (begun["running"], begun["checkpoint"], begun["epoch"], begun["samples"]) == (True, None, 0, 0)
    assert epochs == sorted(epochs)
    assert set(busy[:1]) == {(True, False)}
    assert (killed["running"], code) == (False, 0 if killed["complete"] else 85)
    assert killed["complete"] or killed["next"] == f"camox resume {folder}"


def test_killed(tiny_data: Path, tmp_path: Path) -> None:
    """What was lost is said; a resume goes on from where it was said to."""
    folder = tmp_path / "run"
    command = [*train_command(tiny_run(tiny_data, folder, **SHORT, save_every="2"))]
    code, output = run(command, RANK="0", **sabotage(tmp_path / "site", 0, 4, kill("self", "SIGKILL")))
    assert code == -signal.SIGKILL, output
    code, found = status(folder, FLAG, "85")

    assert code == 85
    assert (found["running"], found["epoch"], found["samples"]) in [(False, 0, 6), (None, 0, 6)]
    assert (found["checkpoint"], found["checkpoints"]["last.pth"]["samples"]) == ("last.pth", 4)
    assert found["next"] == f"camox resume {folder}"
    code, output = run(camox("resume", str(folder)))
    assert code == 0, output
    assert "0 epochs complete, 4 images into epoch 1" in output
    assert status(folder, FLAG, "85")[0] == 0


def test_what_is_damaged_is_passed_over(run_copy: Path) -> None:
    """The file that counts as the newest intact one is the one that a resume uses."""
    data = bytearray((run_copy / "last.pth").read_bytes())
    data[-2000] ^= 1  # in the directory
    (run_copy / "last.pth").write_bytes(data)
    _, found = status(run_copy)
    dry = CliRunner().invoke(app, ["resume", str(run_copy), "--dry-run"])

    assert (found["checkpoint"], found["checkpoints"]["last.pth"]["intact"]) == ("previous.pth", False)
    assert f"Checkpoint       {run_copy}/previous.pth: 1 epoch complete, 6 images into epoch 2" in dry.stdout


def test_read_while_it_is_replaced(run_copy: Path) -> None:
    """Files that come and go under it are read as they were, or are not there; never are they damaged."""
    script = (
        "import os, sys, time; from pathlib import Path; folder, end = Path(sys.argv[1]), time.monotonic() + 60\n"
        "whole = (folder / 'last.pth').read_bytes()\n"
        "while time.monotonic() < end and (folder / 'go').exists():\n"
        "    (folder / '.new').write_bytes(whole)\n"
        "    os.replace(folder / 'previous.pth', folder / 'best_model.pth')\n"
        "    os.replace(folder / 'last.pth', folder / 'previous.pth')\n"
        "    os.replace(folder / '.new', folder / 'last.pth')\n"
    )
    (run_copy / "go").touch()
    shutil.copy(run_copy / "last.pth", run_copy / "previous.pth")
    with subprocess.Popen([sys.executable, "-c", script, str(run_copy)]) as process:
        found = [status(run_copy)[1]["checkpoints"] for _ in range(10)]
        (run_copy / "go").unlink()

    assert process.returncode == 0
    assert {each["intact"] for checkpoints in found for each in checkpoints.values()} == {True}


def test_under_torchrun(tiny_data: Path, tmp_path: Path) -> None:
    """Its processes keep their exit codes; the first says what to ask afterwards, and the answer is the code."""
    folder = tmp_path / "run"
    launcher = "-m torch.distributed.run --standalone --nproc-per-node=1 --local-addr=127.0.0.1".split()
    command = [*train_command(tiny_run(tiny_data, folder, **SHORT)), FLAG, "85", "--session-limit", "10m"]
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    environment = {"GLOO_SOCKET_IFNAME": loopback, "CAMOX_SESSION_START": str(time.time() - 599)}
    code, output = run([sys.executable, *launcher, *command[1:]], **environment)
    asked = f"camox status {folder} {FLAG} 85"

    assert code == 0, output
    assert output.count(asked) == 1
    assert "Resume with: camox resume" in output
    assert run(camox(*asked.split()[1:]))[0] == 85


def test_after_a_signal_to_two(tiny_data: Path, tmp_path: Path) -> None:
    """What a launcher exits with and what is said of its run agree."""
    folder = tmp_path / "run"
    command = [*train(tiny_data, folder, **TWO), FLAG, "85"]
    code, output = run(command, **sabotage(tmp_path / "site", 1, 1, kill("launcher", "SIGTERM")))
    status_code, found = status(folder, FLAG, "85")

    assert (code, status_code) == (85, 85)
    assert the_message(output).endswith(f"Try:   {found['next']}\n")
    assert found["samples"] == found["checkpoints"]["last.pth"]["samples"] > 0
