"""Runs of several processes from the command line: what goes wrong in one of them, and how the run goes on after it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from tests.behaviour.test_processes import the_message, train
from tests.helpers.cut_runs import differing, steps
from tests.helpers.processes import camox, finish, run, start
from tests.helpers.sabotage import kill, sabotage


@pytest.fixture(scope="module")
def uncut(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, from beginning to end."""
    folder = tmp_path_factory.mktemp("uncut") / "run"
    code, output = run(train(tiny_data, folder))
    assert code == 0, output
    return folder


def test_through_thick_and_thin(tiny_data: Path, tmp_path: Path, uncut: Path) -> None:
    """Launcher killed, asked to end, a worker killed with a restart: the end is that of the run uncut, to the bit."""
    folder = tmp_path / "run"

    # The workers save and end by themselves: until they have, the output is open.
    code, output = run(train(tiny_data, folder), **sabotage(tmp_path / "a", 1, 2, kill("launcher", "SIGKILL")))
    assert code == -signal.SIGKILL
    assert "Traceback" not in output

    # No save is due but that of the end.
    command = camox("resume", str(folder), "--set", "run.save_every=null")
    code, output = run(command, **sabotage(tmp_path / "b", 0, 1, kill("group", "SIGINT")))
    assert code == 130, output
    assert f"Try:   camox resume {folder}\n" in the_message(output)
    saved = read_checkpoint(folder / "last.pth")["training"]["progress"]
    assert (saved["epoch"] + 1, saved["samples"]) == steps(folder)[-1] or saved["samples"] == 0

    command = camox("resume", str(folder), "--max-restarts", "1", "--save-every", "1")
    code, output = run(command, **sabotage(tmp_path / "c", 1, 1, kill("self", "SIGKILL")))
    assert code == 0, output
    assert f"rank 1 was killed by SIGKILL; its log is {folder}/logs/rank1.log" in the_message(output)
    assert "restart 1 of 1" in output

    assert differing(folder, uncut) == []
    assert steps(folder) == steps(uncut)
    assert [path.name for path in folder.glob(".*")] == []


def test_a_worker_that_does_not_answer(tiny_data: Path, tmp_path: Path) -> None:
    """It is named after the time-out, and ended."""
    command = [*train(tiny_data, tmp_path / "run"), "--set", "run.collective_timeout=5s"]
    code, output = run(command, **sabotage(tmp_path / "a", 1, 3, kill("self", "SIGSTOP")))
    message = the_message(output)

    assert code == 75
    assert f"rank 1 stopped responding, and the others timed out; its log is {tmp_path}/run/logs/rank1.log" in message
    assert f"camox resume {tmp_path}/run" in message


def test_an_image_that_one_rank_cannot_read(tiny_data: Path, tmp_path: Path) -> None:
    """The error is told once, by the rank that met it, with the exit code for data; the others do not add theirs.

    It ends though it could not take leave of the others, as with NCCL while they wait for it.
    """
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    # The second image of the second epoch is rank 1's first one.
    action = (
        "import time, torch.distributed; torch.distributed.destroy_process_group = lambda *_: time.sleep(600); "
        "from camoxpert_cli.data.sampling import epoch_order; run = arguments[0]; "
        "run.data.train[epoch_order(8, run.config.train.seed, 1)[1]].image.write_bytes(b'')"
    )
    code, output = run(train(data, tmp_path / "run"), **sabotage(tmp_path / "a", 1, 2, action))
    message = the_message(output)

    assert code == 3, output
    assert message.startswith(f"Error: rank 1: {data}/TrainDataset/Imgs/train-")
    assert f".png cannot be decoded as an image; its log is {tmp_path}/run/logs/rank1.log\n" in message


def test_from_one_process_to_two_and_back(tiny_data: Path, tmp_path: Path) -> None:
    """The images of a step stay the same, none is repeated or left out; a bug in one rank is told with its log."""
    folder = tmp_path / "run"
    go_on = camox("resume", str(folder), "--device", "cpu", "--gpus")
    command = train(tiny_data, folder, gpus=1, batch_size=4, stage2_batch_size=4, accumulation_steps=1)
    code, output = run(command, RANK="0", **sabotage(tmp_path / "a", 0, 1, kill("self", "SIGTERM")))
    assert code == 143, output
    assert steps(folder) == [(1, 4)]

    code, output = run([*go_on, "2"], **sabotage(tmp_path / "b", 1, 4, "raise ZeroDivisionError('a bug')"))
    log = folder / "logs" / "rank1.log"
    assert code == 1, output
    assert f"Error: rank 1: ZeroDivisionError: a bug; its log is {log}\n" in the_message(output)
    assert f"Try:   camox resume {folder}\n" in output
    assert "Traceback" in log.read_text()
    two = read_checkpoint(folder / "last.pth")["config"]

    code, output = run([*go_on, "1"])
    assert code == 0, output
    one = read_checkpoint(folder / "last.pth")["config"]

    assert (two["run"]["gpus"], two["train"]["batch_size"], two["train"]["accumulation_steps"]) == (2, 2, 1)
    assert (one["run"]["gpus"], one["train"]["batch_size"] * one["train"]["accumulation_steps"]) == (1, 4)
    assert steps(folder) == [(epoch, samples) for epoch in (1, 2, 3) for samples in (4, 8)]


def test_the_clock_of_two(tiny_data: Path, tmp_path: Path) -> None:
    """Out of time, both end with exit code 0, saved, and the command to go on is said once."""
    folder = tmp_path / "run"
    # The session has been going on for nearly the ten minutes it may last, as far as the processes are told.
    command = [*train(tiny_data, folder), "--session-limit", "10m"]
    code, output = run(command, CAMOX_SESSION_START=str(time.time() - 592))

    assert code == 0, output
    assert output.count(f"Resume with: camox resume {folder}\n") == 1
    assert "Error" not in output
    assert (folder / "last.pth").exists()


def agents(command: list[str], **environment: str) -> list[subprocess.Popen[str]]:
    """Two torchrun agents, as on two machines, each with one worker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [
        *[sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"],
        *[f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1", *command[1:]],
    ]
    return [start(launcher, GLOO_SOCKET_IFNAME="lo", **environment) for _ in range(2)]


def test_two_machines(tiny_data: Path, tmp_path: Path, uncut: Path) -> None:
    """Started by torchrun on two machines, one of which dies, a run goes on to the end of our own launcher's."""
    folder = tmp_path / "run"
    action = f"os.kill(os.getppid(), signal.SIGKILL); {kill('self', 'SIGKILL')}"
    cut = agents(train(tiny_data, folder), **sabotage(tmp_path / "a", 1, 4, action))
    outcomes = [finish(process) for process in cut]
    assert sorted(code for code, _ in outcomes) == [-signal.SIGKILL, 1], outcomes
    (survivor,) = [output for code, output in outcomes if code == 1]
    assert "Error: this process lost the connection to the other ranks" in survivor

    outcomes = [finish(process) for process in agents(camox("resume", str(folder)))]
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    assert differing(folder, uncut) == []
    assert steps(folder) == steps(uncut)
