"""Runs that a clock or a signal ends, and what the command that started them exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from tests.behaviour.test_processes import SHORT, the_message, train
from tests.helpers.at_start import at_start
from tests.helpers.cut_runs import steps
from tests.helpers.places import ROOT
from tests.helpers.processes import TIMEOUT, camox, run, train_command
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import tiny_run

FLAG = "--unfinished-exit-code"
TWO: dict[str, Any] = {"epochs": 1, "num_experts": 1, "warmup_epochs": 0, "max_restarts": 2}


def test_a_signal(tiny_data: Path, tmp_path: Path) -> None:
    """A run that is asked to end saves, says so, and exits with the code; resumed to its end, with 0."""
    folder = tmp_path / "run"
    command = [*train_command(tiny_run(tiny_data, folder, **SHORT)), FLAG, "85"]
    code, output = run(command, RANK="0", **sabotage(tmp_path / "site", 0, 2, kill("self", "SIGUSR1")))
    assert code == 85, output
    assert "stopped by SIGUSR1 in epoch 1 of 1, 4 images into it; saved to" in the_message(output)
    assert read_checkpoint(folder / "last.pth")["training"]["progress"]["samples"] == 4

    # The code is a setting of the run, like its limits.
    code, output = run(camox("resume", str(folder)))
    assert code == 0, output
    code, output = run(camox("resume", str(folder), "--epochs", "2", "--time-limit", "1s"))
    assert code == 85, output
    assert "Resume with: camox resume" in output


def test_one_command_until_it_is_complete(tiny_data: Path, tmp_path: Path) -> None:
    """What a scheduler does: the same command again, for as long as it exits with the code."""
    folder = tmp_path / "run"
    command = [*train_command(tiny_run(tiny_data, folder, **SHORT)), "--continue", FLAG, "85"]
    codes = []
    for number in ("SIGTERM", "SIGUSR1", None):
        stops = {} if number is None else sabotage(tmp_path / number, 0, 1, kill("self", number))
        codes.append(run(command, RANK="0", **stops)[0])
    again, output = run(command)

    assert (codes, again) == ([85, 85, 0], 0), output
    assert steps(folder) == [(1, 2), (1, 4), (1, 6), (1, 8)]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_the_launcher(tiny_data: Path, tmp_path: Path, number: str) -> None:
    """The processes end with codes of their own, none is started again, and the launcher says what it always says."""
    folder = tmp_path / "run"
    command = [*train(tiny_data, folder, **TWO), FLAG, "85"]
    code, output = run(command, **sabotage(tmp_path / "site", 1, 1, kill("launcher", number)))

    assert code == 85, output
    message = the_message(output)
    assert message.startswith(f"Error: stopped by {number} in epoch 1 of 1, ")
    assert f"Try:   camox resume {folder}\n" in message
    assert "restart" not in output
    assert read_checkpoint(folder / "last.pth")["training"]["progress"]["samples"] > 0


def test_the_clock_of_two(tiny_data: Path, tmp_path: Path) -> None:
    """The outcome is printed as JSON, and the code follows."""
    folder = tmp_path / "run"
    command = [*train(tiny_data, folder, **TWO), "--session-limit", "10m", "--json", FLAG, "7"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CAMOX_SESSION_START": str(time.time() - 599)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT, env=environment)

    assert done.returncode == 7, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["complete"], outcome["next"]) == (False, f"camox resume {folder}")
    assert "Error" not in done.stderr
    assert "restart" not in done.stderr


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_second_ctrl_c(tiny_data: Path, tmp_path: Path, gpus: int) -> None:
    """A run that is stopped immediately is as unfinished as one that could save."""
    press = kill("self" if gpus == 1 else "launcher", "SIGINT")
    command = [*train(tiny_data, tmp_path / "run", **{**TWO, "gpus": gpus}), FLAG, "85"]
    action = f"import time; {press}; time.sleep(1.5); {press}; time.sleep(60)"
    code, output = run(command, RANK="0", **sabotage(tmp_path / "site", 0, 1, action))

    assert code == 85, output
    assert "stopped immediately by a second Ctrl-C" in the_message(output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_it_begins(tiny_data: Path, tmp_path: Path, number: signal.Signals) -> None:
    """While the data are read, one sentence, and the code."""
    early = "import signal, camoxpert_cli.engine.run as it; it.open_data = lambda *_: signal.raise_signal({})"
    command = [*train_command(tiny_run(tiny_data, tmp_path / "run", **SHORT)), FLAG, "85"]
    code, output = run(command, **at_start(tmp_path / "site", early.format(int(number))))

    assert code == 85, output
    assert the_message(output).startswith("Error: stopped by ")
    assert len(the_message(output).splitlines()) == 1
