"""Real processes that are killed, asked to end, or run out of time, and go on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.engine.train import train
from camoxpert_cli.launch.decide import decide
from tests.helpers.at_start import at_start
from tests.helpers.cut_runs import SETTINGS, differing
from tests.helpers.processes import camox, finish, run, start, train_command, wait_for
from tests.helpers.tiny_data import tiny_run


@pytest.fixture(scope="module")
def uncut(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(decide(settings(tiny_data, tmp_path_factory.mktemp("uncut") / "run"))).folder.path


def settings(data: Path, folder: Path, **more: Any) -> Resolved:
    return tiny_run(data, folder, **SETTINGS, **more)


def steps_logged(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return log.read_text().count('"step"') if log.exists() else 0


def being_written(folder: Path) -> set[Path]:
    return set(folder.glob(".*.pth.tmp*"))


# A disk on which a file is half-written for some time, and complete but not in its place for some time more.
SLOW_DISK = """
import time
import torch
from camoxpert_cli.checkpoints import format

save, verify_archive = torch.save, format.verify_archive

def save_slowly(content, path):
    path.write_bytes(b"half")
    time.sleep(0.3)
    save(content, path)

def verify_slowly(path):
    verify_archive(path)
    time.sleep(0.3)

torch.save, format.verify_archive = save_slowly, verify_slowly
"""


def kill_and_resume(data: Path, folder: Path, seeds: range, uncut: Path, environment: dict[str, str]) -> int:
    """Kill the run at a random moment for each of `seeds`, go on each time, and compare the end with `uncut`.

    Returns how many of the kills came while a file was being written.
    """
    command, within = train_command(settings(data, folder)), 0
    for seed in seeds:
        draw = np.random.default_rng(seed)
        before = [steps_logged(folder), being_written(folder)]
        process = start(command, **environment)
        # One of three as a save begins, one within the steps that follow, the others at any time from the start on.
        if seed % 3:
            look = being_written if seed % 3 == 1 else steps_logged
            same = (*before, set())
            wait_for(lambda p=process, look=look, same=same: look(folder) not in same or p.poll() is not None, process)
        time.sleep(float(draw.uniform(0, 0.4)))
        process.send_signal(signal.SIGKILL)
        finish(process)
        within += bool(being_written(folder))
        if (folder / "last.pth").exists():
            read_checkpoint(folder / "last.pth")  # never an unreadable one
            command = camox("resume", str(folder))
    code, output = run(command)

    assert code == 0, output
    assert differing(folder, uncut) == []
    assert list(folder.glob(".*")) == []
    return within


@pytest.mark.parametrize("disk", ["fast", "slow"])
def test_killed_thirty_times(tiny_data: Path, tmp_path: Path, uncut: Path, disk: str) -> None:
    """Killed at thirty moments, a run ends with the weights, EMA, optimizer and history of the uncut one.

    On a slow disk most moments are within a write, beside which training continues.
    """
    environment = at_start(tmp_path / "start", SLOW_DISK) if disk == "slow" else {}
    within = [
        kill_and_resume(tiny_data, tmp_path / f"run{part}", range(6 * part, 6 * part + 6), uncut, environment)
        for part in range(5)
    ]

    assert sum(within) >= (10 if disk == "slow" else 0)


@pytest.mark.parametrize("moment", ["torch.save", "verify_archive", "os.fsync", "Path.replace"])
def test_killed_while_saving(tiny_data: Path, tmp_path: Path, uncut: Path, moment: str) -> None:
    """Killed within a save, between any of its parts, a run loses no more than the steps since the last one."""
    folder = tmp_path / "run"
    script = f"""
import os, signal, sys
from pathlib import Path
import torch
from camoxpert_cli.checkpoints import format
from camoxpert_cli import app

places = {{"torch.save": (torch, "save"), "verify_archive": (format, "verify_archive"), "os.fsync": (os, "fsync"),
          "Path.replace": (Path, "replace")}}
owner, name = places[{moment!r}]
original, calls = getattr(owner, name), 0

def deadly(*arguments, **options):
    global calls
    calls += "last.pth" in str(arguments[0]) or name in ("save", "fsync")
    if calls == {{"fsync": 7}}.get(name, 5):  # the settings were flushed before
        if name == "save":
            original({{"half": torch.ones(9)}}, *arguments[1:])  # something is there, and not all of it
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)

setattr(owner, name, deadly)
sys.argv = ["camox", *{train_command(settings(tiny_data, folder))[3:]!r}]
app.main()
"""
    code, output = run([camox()[0], "-c", script])
    assert code == -signal.SIGKILL, output
    code, output = run(camox("resume", str(folder)))

    assert code == 0, output
    assert differing(folder, uncut) == []
    assert list(folder.glob(".*")) == []


@pytest.mark.parametrize(
    ("number", "expected", "workers"),
    [
        pytest.param(signal.SIGINT, 130, 0, id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, 2, id="SIGTERM"),
    ],
)
def test_signals(
    tiny_data: Path, tmp_path: Path, uncut: Path, number: signal.Signals, expected: int, workers: int
) -> None:
    """Ctrl-C and SIGTERM, sent to the whole group, save between two steps and end with the usual code and a command."""
    folder = tmp_path / "run"
    process = start(train_command(settings(tiny_data, folder, num_workers=workers)))
    wait_for(lambda: steps_logged(folder) >= 3, process)
    os.killpg(process.pid, number)
    code, output = finish(process)
    saved = read_checkpoint(folder / "last.pth")["training"]["progress"]

    assert code == expected, output
    assert f"camox resume {folder}" in output
    assert "Traceback" not in output
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in logged if row["event"] in ("step", "epoch")][-1]
    assert (saved["epoch"], saved["samples"]) == (
        (last["epoch"] - 1, last["samples"]) if last["event"] == "step" else (last["epoch"], 0)
    )
    code, output = run(camox("resume", str(folder)))
    assert code == 0, output
    assert differing(folder, uncut) == []


def test_the_clock(tiny_data: Path, tmp_path: Path, uncut: Path) -> None:
    """Out of time, a run ends between two steps with exit code 0, saved, and says how to go on."""
    folder = tmp_path / "run"
    # The session has been going on for nearly the ten minutes it may last, as far as the process is told.
    command = [*train_command(settings(tiny_data, folder)), "--session-limit", "10m"]
    code, output = run(command, CAMOX_SESSION_START=str(time.time() - 592))

    assert code == 0, output
    assert "topped by the session limit of 10m (" in output
    assert output.rstrip().endswith(f"Resume with: camox resume {folder}")
    assert not (folder / "results.json").exists()
    code, output = run(camox("resume", str(folder)), CAMOX_SESSION_START=str(time.time()))
    assert code == 0, output
    assert differing(folder, uncut) == []
    assert (folder / "results.json").exists()
