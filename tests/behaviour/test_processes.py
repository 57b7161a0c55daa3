"""Runs of which something dies on the way: one of several processes, what loads images, whoever listens."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from tests.helpers.at_start import at_start
from tests.helpers.cut_runs import SETTINGS, differing, steps
from tests.helpers.places import ROOT
from tests.helpers.processes import TIMEOUT, all_signals_heard, camox, run, train_command
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import tiny_run


def train(data: Path, folder: Path, **more: Any) -> list[str]:
    """An epoch of stage 1, two phases of stage 2; 8 images in steps of 2 ranks x 1 image x 2 batches."""
    chosen = {**SETTINGS, "epochs": 3, "stage1_epochs": 1, "batch_size": 1, "stage2_batch_size": 1, "gpus": 2, **more}
    return train_command(tiny_run(data, folder, **chosen))


def the_message(output: str) -> str:
    """The one message that `output` must hold, without torch's."""
    assert "Traceback" not in output
    assert output.count("\nError: ") + output.startswith("Error: ") == 1, output
    return output[output.index("Error: ") :]


# Rank 1 is killed once, when the first gradients of its second step are to be summed and others are yet to come.
IN_BACKWARD = """
import os

mark = os.environ["MARK"]
if os.environ.get("RANK") == "1" and not os.path.exists(mark):
    import signal
    from camoxpert_cli.parallel.world import World

    def start_all_reduce(world, tensor):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

    World.start_all_reduce = start_all_reduce
"""


@pytest.mark.parametrize("where", ["before the update", "in the backward pass"])
def test_a_worker_that_is_killed(tiny_data: Path, tmp_path: Path, where: str) -> None:
    """It is named with its log, all start again from the last checkpoint, and no step is made twice or left out.

    They end with the bits of a run in which nobody was killed.
    """
    folder, uncut, mark = tmp_path / "run", tmp_path / "uncut", tmp_path / "mark"
    settings = {"epochs": 1, "warmup_epochs": 0, "num_experts": 1, "max_restarts": 1}
    command = train(tiny_data, folder, **settings)
    if where == "before the update":
        code, output = run(command, **sabotage(tmp_path / "site", 1, 1, kill("self", "SIGKILL")))
    else:
        code, output = run(command, MARK=str(mark), **at_start(tmp_path / "site", IN_BACKWARD))
        assert mark.exists()

    assert code == 0, output
    assert f"rank 1 was killed by SIGKILL; its log is {folder}/logs/rank1.log" in the_message(output)
    assert "restart 1 of 1" in output
    assert "0 epochs complete, 4 images into epoch 1" in output
    assert steps(folder) == [(1, 4), (1, 8)]
    assert (folder / "results.json").exists()
    # Rank 0 alone writes the run's files.
    assert "Epoch 1/1" in (folder / "logs" / "rank1.log").read_text()

    code, output = run(train(tiny_data, uncut, **settings))
    assert code == 0, output
    assert differing(folder, uncut) == []


# An epoch of stage 1: 8 images in steps of 2.
SHORT: dict[str, Any] = {"epochs": 1, "stage1_epochs": 1, "batch_size": 2, "num_experts": 1}


def test_what_loads_images_is_killed(tiny_data: Path, tmp_path: Path) -> None:
    """As where memory runs out: it is a sentence, no step is lost, and the command goes on without such processes."""
    folder = tmp_path / "run"
    kill_one = "import multiprocessing; os.kill(multiprocessing.active_children()[0].pid, 9)"
    command = train_command(tiny_run(tiny_data, folder, **SHORT, num_workers=1))
    code, output = run(command, RANK="0", **sabotage(tmp_path / "site", 0, 1, kill_one))

    assert code == 3, output
    message = the_message(output)
    assert "was killed by SIGKILL, probably because the machine ran out of memory, in epoch 1" in message
    assert message.endswith(f"Try:   camox resume {folder} --num-workers 0\n")
    trained = [samples for _, samples in steps(folder)]  # it had loaded some batches ahead
    assert read_checkpoint(folder / "last.pth")["training"]["progress"]["samples"] == trained[-1] > 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signals(tiny_data: Path, tmp_path: Path, number: signal.Signals) -> None:
    """A connection that is closed and a scheduler's warning are heard: saved, said, 128 + the signal's number."""
    folder = tmp_path / "run"
    command = train_command(tiny_run(tiny_data, folder, **SHORT))
    code, output = run(command, RANK="0", **sabotage(tmp_path / "site", 0, 2, kill("self", number.name)))

    assert code == 128 + number, output
    assert f"stopped by {number.name}" in the_message(output)
    assert " in epoch 1 of 1, 4 images into it" in the_message(output)
    assert steps(folder) == [(1, 2), (1, 4)]
    assert read_checkpoint(folder / "last.pth")["training"]["progress"]["samples"] == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_before_it_begins(tiny_data: Path, tmp_path: Path, number: signal.Signals) -> None:
    """While all is made ready, one sentence; nothing was done yet."""
    early = "import signal, camoxpert_cli.config.resolve as it; it.resolve = lambda *_: signal.raise_signal({})"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(early.format(int(number)))
    command = train_command(tiny_run(tiny_data, tmp_path / "run", **SHORT))
    code, output = run(command, PYTHONPATH=f"{tmp_path / 'site'}:{ROOT}")

    assert code == 128 + number, output
    assert the_message(output) == output
    assert output.startswith("Error: stopped by ")
    assert len(output.splitlines()) == 1


def test_ignored(tiny_data: Path, tmp_path: Path) -> None:
    """Under `nohup` a hang-up changes nothing."""
    folder = tmp_path / "run"
    command = train_command(tiny_run(tiny_data, folder, **SHORT))
    nohup = sabotage(tmp_path / "site", 0, 2, kill("self", "SIGHUP"), "import signal; signal.signal(1, signal.SIG_IGN)")
    code, output = run(command, RANK="0", **nohup)

    assert code == 0, output
    assert (folder / "results.json").exists()


@pytest.mark.parametrize(
    ("full", "results", "gpus", "expected"),
    [(True, True, 1, 2), (True, False, 1, 0), (False, True, 1, 141), (False, True, 2, 141)],
)
def test_nobody_listens(tiny_data: Path, tmp_path: Path, full: bool, results: bool, gpus: int, expected: int) -> None:
    """A full disk behind the log, or a reader that has ended, costs what would have been said, and not the run.

    The exit code tells of the results alone.
    """
    folder = tmp_path / "run"
    command = train_command(tiny_run(tiny_data, folder, **SHORT, gpus=gpus))
    reader, gone = os.pipe()
    os.close(reader)
    if full:
        os.close(gone)
        gone = os.open("/dev/full", os.O_WRONLY)
    with all_signals_heard():
        process = subprocess.Popen(command, stdout=gone if results else subprocess.DEVNULL, stderr=gone, cwd=ROOT)
    os.close(gone)

    assert process.wait(TIMEOUT) == expected
    assert (folder / "results.json").exists()
    assert read_checkpoint(folder / "last.pth")["epoch"] == 1


def test_the_launcher_is_killed(tiny_data: Path, tmp_path: Path) -> None:
    """Its processes save and end, and what they said is where the run is; the next command removes what it left."""
    folder, place = tmp_path / "run", tmp_path / "temporary"
    place.mkdir()
    command = train(tiny_data, folder, epochs=1, num_experts=1, warmup_epochs=0)
    killed = sabotage(tmp_path / "site", 1, 1, kill("launcher", "SIGKILL"))
    code, _ = run(command, TMPDIR=str(place), **killed)
    assert code == -signal.SIGKILL
    assert read_checkpoint(folder / "last.pth")["training"]["progress"]["samples"] == steps(folder)[-1][1]
    assert "stopped by SIGTERM" in (folder / "logs" / "rank1.log").read_text()
    assert len(list(place.glob("camox-*"))) == 1

    code, output = run([*camox("resume", str(folder))], TMPDIR=str(place))
    assert code == 0, output
    assert list(place.glob("camox-*")) == []
