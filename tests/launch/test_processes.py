"""The launcher with workers that are a few lines of Python: what it says, what it ends with, whom it ends."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from camoxpert_cli import console
from camoxpert_cli.errors import CamoxError, DataError
from camoxpert_cli.launch import child_processes
from camoxpert_cli.launch.child_processes import ABORTED
from camoxpert_cli.launch.processes import launch, to_go_on
from camoxpert_cli.parallel.worker import MEETING_POINT, PEER_LOST, is_first

WORKER = """
import os, signal, sys, time
from pathlib import Path
from camoxpert_cli.parallel.worker import tell_launcher, tell_run_folder

rank = int(os.environ["RANK"])
launcher = int(os.environ["CAMOX_PARENT"])

def fail(code, message, hint=""):
    tell_launcher(message, hint, "")
    sys.exit(code)

if sys.argv[3] == "resume":
    print("went on", *sys.argv[3:], flush=True)
else:
    exec(sys.argv[3])
"""


@pytest.fixture(autouse=True)
def _workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run the code that is their only argument; they find the run folder `run`."""
    (tmp_path / "worker.py").write_text(WORKER)
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(tmp_path))}/worker.py "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(child_processes, "GRACE_SECONDS", 0.5)
    (tmp_path / "run").mkdir()


def end_of(code: str, capfd: pytest.CaptureFixture[str], restarts: int = 0) -> tuple[int, str]:
    """Exit code and what stands on the terminal after two workers ran `code`."""
    exit_code = 0
    try:
        launch([code], 2, threads=1, max_restarts=restarts)
    except CamoxError as error:
        exit_code = error.exit_code
        console.fail(error.message, error.hint, error.details)
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else -1
    said = capfd.readouterr()
    return exit_code, said.out + said.err


IN_RUN = "tell_run_folder(Path('run'))\n"
WAIT = "time.sleep(60)"
NO_PEERS = "Try:   camox doctor; NCCL_P2P_DISABLE=1 helps where GPUs cannot reach each other\n"


def test_all_end_well(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Rank 0 speaks on the terminal, the others into their logs in the run folder."""
    exit_code, said = end_of(IN_RUN + "print('I am', rank, os.environ['WORLD_SIZE'])", capfd)

    assert (exit_code, said) == (0, "I am 0 2\n")
    assert (tmp_path / "run" / "logs" / "rank1.log").read_text() == "I am 1 2\n"
    assert len(list((tmp_path / "run" / "logs").iterdir())) == 1


def test_threads_are_shared_out(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker gets its part of the cores, unless the user has said how many threads there shall be."""
    ask = "print(os.environ['OMP_NUM_THREADS'])"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert end_of(ask, capfd) == (0, "1\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert end_of(ask, capfd) == (0, "7\n")


@pytest.mark.parametrize(
    ("code", "expected", "message"),
    [
        ("fail(3, 'no such folder', 'look')", 3, "Error: no such folder\nTry:   look\n"),
        (
            f"if rank: fail(3, 'broken picture')\n{WAIT}",
            3,
            "Error: rank 1: broken picture; its log is {log}\n",
        ),
        (f"if rank == 0: fail(2, 'folder in use', 'wait')\n{WAIT}", 2, "Error: folder in use\nTry:   wait\n"),
        (
            f"if rank: os.kill(os.getpid(), signal.SIGKILL)\nfail({PEER_LOST}, 'lost the others')",
            137,
            "Error: rank 1 was killed by SIGKILL; its log is {log}\n",
        ),
        (f"if rank == 0: os.kill(os.getpid(), signal.SIGSEGV)\n{WAIT}", 139, "Error: rank 0 was killed by SIGSEGV\n"),
        (f"if rank: os._exit(9)\n{WAIT}", 9, "Error: rank 1 ended with exit code 9; its log is {log}\n"),
        (
            f"if rank: fail(1, 'ValueError: a bug')\ntime.sleep(0.3)\nfail({PEER_LOST}, 'lost the others')",
            1,
            "Error: rank 1: ValueError: a bug; its log is {log}\n",
        ),
        (
            f"if rank == 0: fail({PEER_LOST}, 'lost the others')\n{WAIT}",
            PEER_LOST,
            "Error: rank 1 does not answer, and the others gave up; its log is {log}\n"
            "Try:   --set run.collective_timeout=1h waits longer\n",
        ),
        # NCCL's watchdog aborts whoever waited too long for another one, and a rank whose GPU failed: both are named.
        (
            f"if rank == 0: os.abort()\n{WAIT}",
            PEER_LOST,
            f"Error: rank 1 does not answer; its log is {{log}}, and rank 0 {ABORTED}\n{NO_PEERS}",
        ),
        (
            f"if rank == 1: os.abort()\n{WAIT}",
            PEER_LOST,
            f"Error: rank 0 does not answer, and rank 1 {ABORTED}; its log is {{log}}\n{NO_PEERS}",
        ),
        (
            "if rank == 0: os.abort()\ntime.sleep(0.3)\nfail(3, 'broken picture')",
            3,
            "Error: rank 1: broken picture; its log is {log}\n",
        ),
        (
            "os.abort()",
            134,
            f"Error: rank 0 {ABORTED}\n{NO_PEERS}",
        ),
        (
            f"fail({PEER_LOST}, 'lost the others', 'look')",
            PEER_LOST,
            "Error: lost the others\nTry:   look\n",
        ),
        # The disk is full: rank 1 has nothing to save and ends first, as asked.
        (
            "if rank: fail(143, 'stopped')\ntime.sleep(0.3)\nfail(6, 'not saved')",
            6,
            "Error: not saved\n",
        ),
        # The first rank is still saving as the other one ends.
        ("if rank == 0: time.sleep(0.3)\nfail(143, f'stopped, says {rank}')", 143, "Error: stopped, says 0\n"),
        ("if rank == 0: sys.exit(141)\n" + WAIT, 141, ""),
    ],
)
def test_one_message(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    code: str,
    expected: int,
    message: str,
) -> None:
    """The cause is told once, with rank and log, and its exit code is the launcher's; who does not end is ended."""
    # Those that would wait for ever are ended soon, the others end by themselves however busy the machine is.
    monkeypatch.setattr(child_processes, "GRACE_SECONDS", 0.3 if code.endswith(WAIT) else 30.0)
    log = tmp_path / "run" / "logs" / "rank1.log"

    assert end_of(IN_RUN + code, capfd) == (expected, message.format(log=log))


def test_the_error_is_of_its_class() -> None:
    """Who starts processes from Python can tell a broken picture from a broken checkpoint, as in a run of one."""
    with pytest.raises(DataError) as caught:
        launch(["fail(3, 'broken picture', 'look')"], 2, threads=1, max_restarts=0)

    assert str(caught.value) == "broken picture\nTry:   look"


def test_from_a_thread() -> None:
    """Where no handlers may be set, as in a thread, the workers run all the same."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(launch, ["pass"], 2, threads=1, max_restarts=0).result()


def test_before_there_is_a_run_folder(capfd: pytest.CaptureFixture[str]) -> None:
    """Where no log can be kept, its end is shown."""
    exit_code, said = end_of("if rank: print('this is why', flush=True); os._exit(9)", capfd)

    assert (exit_code, said) == (9, "Error: rank 1 ended with exit code 9\nthis is why\n")


@pytest.mark.parametrize(
    ("number", "expected", "name"),
    [(signal.SIGTERM, 143, "a request to terminate"), (signal.SIGINT, 130, "Ctrl-C")],
)
def test_signals_are_passed_on(
    capfd: pytest.CaptureFixture[str], number: signal.Signals, expected: int, name: str
) -> None:
    """Whoever saves on request takes its time; a worker that did not listen yet makes no other message."""
    listening = f"""
Path(f'ready{{rank}}').touch()
while not Path('ready1').exists(): time.sleep(0.01)
if rank == 0: os.kill(launcher, {int(number)})
asked = signal.sigwait([{int(number)}])
if rank == 0: time.sleep(1.5); print('saved', flush=True)
fail(128 + asked, 'stopped well')
"""
    block = f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])\n"
    assert end_of(block + listening, capfd) == (expected, "saved\nError: stopped well\n")

    deaf = f"""
signal.signal({int(number)}, signal.SIG_DFL)
Path(f'deaf{{rank}}').touch()
while not Path('deaf0').exists(): time.sleep(0.01)
if rank: os.kill(launcher, {int(number)})
{WAIT}
"""
    assert end_of(deaf, capfd) == (expected, f"Error: stopped by {name}\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_asked_twice(capfd: pytest.CaptureFixture[str]) -> None:
    """Workers that hang cannot listen: whoever asks again is rid of them."""
    code = f"""
signal.signal(signal.SIGINT, signal.SIG_IGN)
Path(f'deaf{{rank}}').touch()
while not (Path('deaf0').exists() and Path('deaf1').exists()): time.sleep(0.01)
if rank: os.kill(launcher, signal.SIGINT); time.sleep(1.5); os.kill(launcher, signal.SIGINT)
{WAIT}
"""
    assert end_of(code, capfd) == (130, "Error: stopped at once by a second Ctrl-C\n")


def is_running(process: int) -> bool:
    """One that only waits for somebody to collect it does not run."""
    with suppress(OSError):
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def test_no_process_is_left(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What a worker has started itself, such as the readers of its pictures, ends with it."""
    code = """
import subprocess
if rank == 0:
    reader = subprocess.Popen(['sleep', '60'])
    Path('reader.tmp').write_text(str(reader.pid))
    os.rename('reader.tmp', 'reader')
while not Path('reader').exists(): time.sleep(0.01)
if rank: os._exit(9)
time.sleep(60)
"""
    exit_code, _ = end_of(code, capfd)
    reader = int((tmp_path / "reader").read_text())
    end = time.monotonic() + 10  # on a busy machine a process may take a while to go
    while is_running(reader) and time.monotonic() < end:
        time.sleep(0.05)

    assert exit_code == 9
    assert not is_running(reader)


@pytest.mark.parametrize("checkpoint", ["last.pth", "best_model.pth", None])
def test_restart(capfd: pytest.CaptureFixture[str], tmp_path: Path, checkpoint: str | None) -> None:
    """After a crash all start again: from the run's checkpoint, or anew where there is none yet."""
    if checkpoint is not None:
        (tmp_path / "run" / checkpoint).touch()
    code = f"""{IN_RUN}
import json
if Path('again').exists(): sys.exit(print('anew'))
if rank: Path('again').touch(); os.kill(os.getpid(), signal.SIGKILL)
{WAIT}
"""
    exit_code, said = end_of(code, capfd, restarts=1)

    assert exit_code == 0
    assert "Error: rank 1 was killed by SIGKILL" in said
    assert "Warning: all 2 processes start again, restart 1 of 1" in said
    assert (f"went on resume {tmp_path / 'run'}" if checkpoint else "anew") in said


def test_no_restart_of_what_would_fail_again(capfd: pytest.CaptureFixture[str]) -> None:
    """A user's mistake, a loss that became nan, a signal: none is tried again. A crash is, as often as allowed."""
    for code in (2, 3, 4, 5, 6, 130, 143):
        exit_code, said = end_of(f"fail({code}, 'told')", capfd, restarts=3)
        assert (exit_code, said) == (code, "Error: told\n")
    exit_code, said = end_of("os._exit(9)", capfd, restarts=2)

    assert exit_code == 9
    assert said.count("start again") == 2


def test_a_gpu_that_fails_on_the_way(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It is tried again once there is a checkpoint; one that could not be used from the beginning is not."""
    code = "tell_run_folder(Path('run'))\nfail(5, 'the GPU cannot be used')"
    assert end_of(code, capfd, restarts=1) == (5, "Error: the GPU cannot be used\n")
    (tmp_path / "run" / "last.pth").touch()
    exit_code, said = end_of(code, capfd, restarts=1)

    assert exit_code == 0
    assert "restart 1 of 1" in said
    assert f"went on resume {tmp_path / 'run'}" in said


def test_a_remedy(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What a worker that fails leaves for the next attempt is taken once, beside the restarts after crashes."""
    code = f"""{IN_RUN}
from camoxpert_cli.parallel.worker import tell_remedy
if rank == 0: {WAIT}
tell_remedy('with less', {{'LESS': os.environ.get('LESS', '') + 'x'}})
fail(6, 'too much, less is ' + os.environ.get('LESS', 'none'))
"""
    exit_code, said = end_of(code, capfd, restarts=3)
    log = tmp_path / "run" / "logs" / "rank1.log"

    assert exit_code == 6
    assert said.splitlines() == [
        f"Error: rank 1: too much, less is none; its log is {log}",
        "Warning: all 2 processes start again with less",
        f"Error: rank 1: too much, less is x; its log is {log}",
    ]


def test_the_command_that_goes_on(tmp_path: Path) -> None:
    """Place and output come from the command line, all else from the checkpoint; a resumed run keeps its command."""
    folder = tmp_path / "run"
    train = "train --preset x.yaml --gpus 2 --device=cpu --epochs 3 --num-workers 0 --quiet".split()
    resume = ["resume", "old/", "--epochs", "9", "--gpus", "2"]

    assert to_go_on(train, None, folder) == [
        *["resume", str(folder), "--device=cpu", "--gpus", "2", "--num-workers", "0", "--quiet"],
    ]
    assert to_go_on(resume, Path("old"), folder) == ["resume", str(folder), "--epochs", "9", "--gpus", "2"]
    same = ["resume", "--checkpoint-dir", "old", "old"]
    assert to_go_on(same, Path("old"), folder) == same


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0"}, True),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "1"}, False),
        ({MEETING_POINT: "folder", "RANK": "0"}, False),
        ({MEETING_POINT: "folder", "RANK": "1"}, False),
    ],
)
def test_who_speaks_before_a_run(variables: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that the user started, or rank 0 under torchrun; not the workers of a launcher that spoke already."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert is_first() is first
