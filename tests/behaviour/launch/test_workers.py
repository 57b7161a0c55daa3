"""The launcher with workers that are a few lines of Python: what it says, what it ends with, whom it ends."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli import console
from camoxpert_cli.errors import DataError
from camoxpert_cli.launch.processes import ABORTED
from camoxpert_cli.launch.workers import run_workers
from camoxpert_cli.parallel.worker import PEER_LOST
from camoxpert_cli.signals import ASKING
from tests.helpers.places import ROOT
from tests.helpers.processes import is_running

WORKER = """
import os, signal, sys, time
from pathlib import Path
from camoxpert_cli.parallel.worker import read_job, tell_begun, tell_launcher

rank = int(os.environ["RANK"])
launcher = read_job()["launcher"]

def fail(code, message, hint=""):
    tell_launcher(message, hint, "")
    sys.exit(code)

exec(sys.argv[-1])
"""


@pytest.fixture(autouse=True)
def _workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run the code that is their only argument, in a folder with a run folder `run`."""
    (tmp_path / "worker.py").write_text(WORKER)
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(tmp_path))}/worker.py "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()


@pytest.fixture(autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """As in a terminal; a background job ignores Ctrl-C, and so do those that it starts."""
    usual: dict[signal.Signals, Any] = dict.fromkeys(ASKING, signal.SIG_DFL)
    usual[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# Seconds. Who would wait for ever is killed soon; who ends by itself may take its time, on a busy machine too.
SHORT, LONG = 0.1, 30.0


def end_of(
    code: str, capfd: pytest.CaptureFixture[str], run_folder: Path | None = None, grace: float = SHORT
) -> tuple[int, str]:
    """Exit code and what stands on the terminal after two workers ran `code`."""
    exit_code = 0
    try:
        error = run_workers([code], 2, threads=1, run_folder=run_folder, grace=grace, one_press=0.3).error
        if error is not None:
            exit_code = error.exit_code
            console.fail(error.message, error.hint, error.details)
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else -1
    said = capfd.readouterr()
    return exit_code, said.out + said.err


RUN = Path("run")
# The run has begun for both when either goes on.
BEGIN = """
from camoxpert_cli.parallel.worker import has_begun, shared_folder
tell_begun()
while not has_begun(shared_folder()): time.sleep(0.005)
"""
# To be told after the other one.
LATE = "while not (shared_folder() / f'error{1 - rank}.json').exists(): time.sleep(0.005)\ntime.sleep(0.1)\n"
WAIT = "time.sleep(60)"
NO_PEERS = (
    "Try:   camox doctor; NCCL_P2P_DISABLE=1 helps if GPUs cannot access each other; see camox guide troubleshooting\n"
)


def test_all_end_well(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Rank 0 speaks on the terminal, the others into their logs in the run folder."""
    exit_code, said = end_of(BEGIN + "print('I am', rank, os.environ['WORLD_SIZE'])", capfd, RUN)

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
        (f"if rank: os._exit(9)\n{WAIT}", 9, "Error: rank 1 exited with code 9; its log is {log}\n"),
        (
            f"if rank: fail(1, 'ValueError: a bug')\n{LATE}fail({PEER_LOST}, 'lost the others')",
            1,
            "Error: rank 1: ValueError: a bug; its log is {log}\n",
        ),
        (
            f"if rank == 0: fail({PEER_LOST}, 'lost the others')\n{WAIT}",
            PEER_LOST,
            "Error: rank 1 stopped responding, and the others timed out; its log is {log}\n"
            "Try:   --set run.collective_timeout=1h, to wait longer; see camox guide troubleshooting\n",
        ),
        # NCCL's watchdog aborts whoever waited too long for another one, and a rank whose GPU failed: both are named.
        (
            f"if rank == 0: os.abort()\n{WAIT}",
            PEER_LOST,
            f"Error: rank 1 stopped responding; its log is {{log}}, and rank 0 {ABORTED}\n{NO_PEERS}",
        ),
        (
            f"if rank == 1: os.abort()\n{WAIT}",
            PEER_LOST,
            f"Error: rank 0 stopped responding, and rank 1 {ABORTED}; its log is {{log}}\n{NO_PEERS}",
        ),
        (
            "if rank == 0: os.abort()\ntime.sleep(0.1)\nfail(3, 'broken picture')",
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
            f"if rank: fail(143, 'stopped')\n{LATE}fail(6, 'not saved')",
            6,
            "Error: not saved\n",
        ),
        # The first rank is still saving as the other one ends.
        (f"if rank: fail(143, 'stopped')\n{LATE}fail(143, 'saved')", 143, "Error: saved\n"),
        ("if rank == 0: sys.exit(141)\n" + WAIT, 141, ""),
    ],
)
def test_one_message(capfd: pytest.CaptureFixture[str], tmp_path: Path, code: str, expected: int, message: str) -> None:
    """The cause is told once, with rank and log, and its exit code is the launcher's; who does not end is killed."""
    grace = SHORT if code.endswith(WAIT) else LONG
    log = tmp_path / "run" / "logs" / "rank1.log"

    assert end_of(BEGIN + code, capfd, RUN, grace) == (expected, message.format(log=log))


def test_the_error_is_of_its_class() -> None:
    """Who starts processes from Python can tell a broken image from a broken checkpoint, as in a run of one."""
    error = run_workers(["fail(3, 'broken picture', 'look')"], 2, threads=1).error

    assert isinstance(error, DataError)
    assert str(error) == "broken picture\nTry:   look"


def test_from_a_thread() -> None:
    """Where no handlers may be set, as in a thread, the workers run all the same."""
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(run_workers, ["pass"], 2, threads=1).result().error is None


def test_logs_of_all_attempts() -> None:
    """Workers that start again add to the log, whose first part says why they had to."""
    for _ in range(2):
        assert run_workers([f"{BEGIN}print('said', flush=True)"], 2, threads=1, run_folder=RUN).error is None

    assert (RUN / "logs" / "rank1.log").read_text() == "said\nsaid\n"


def test_before_there_is_a_run_folder(capfd: pytest.CaptureFixture[str]) -> None:
    """Where no log can be kept, its end is shown."""
    exit_code, said = end_of("if rank: print('this is why', flush=True); os._exit(9)", capfd, RUN)

    assert (exit_code, said) == (9, "Error: rank 1 exited with code 9\nthis is why\n")
    assert list(RUN.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "expected", "name"),
    [
        (signal.SIGTERM, 143, "SIGTERM"),
        (signal.SIGINT, 130, "Ctrl-C"),
        (signal.SIGHUP, 129, "SIGHUP (terminal closed)"),
    ],
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
if rank == 0: time.sleep(0.5); print('saved', flush=True)
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
while rank: os.kill(launcher, signal.SIGINT); time.sleep(0.1)
{WAIT}
"""
    assert end_of(code, capfd) == (130, "Error: stopped immediately by a second Ctrl-C\n")


def test_asked_in_two_ways(capfd: pytest.CaptureFixture[str]) -> None:
    """A request to terminate after Ctrl-C is no second Ctrl-C: who saves by then has its time."""
    code = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
Path(f'ready{rank}').touch()
while not Path(f'ready{1 - rank}').exists(): time.sleep(0.01)
if rank == 0:
    os.kill(launcher, signal.SIGINT)
    time.sleep(0.4)
    os.kill(launcher, signal.SIGTERM)
    time.sleep(0.5)
    print('saved', flush=True)
fail(128 + signal.sigwait([signal.SIGINT]), 'stopped well')
"""
    assert end_of(code, capfd) == (130, "saved\nError: stopped well\n")


def test_no_process_is_left(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What a worker has started itself, such as the readers of its images, ends with it."""
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


def test_a_remedy() -> None:
    """What a worker that fails leaves for the next attempt; of several, the first rank's."""
    code = f"""
from camoxpert_cli.parallel.worker import tell_remedy
if rank == 0: {WAIT}
tell_remedy({{'batch': 2}})
fail(6, 'too much')
"""
    attempt = run_workers([code], 2, threads=1, grace=SHORT)

    assert attempt.error is not None
    assert attempt.error.exit_code == 6
    assert attempt.remedy == {"batch": 2}


def test_the_job(capfd: pytest.CaptureFixture[str]) -> None:
    """Each worker reads what it has to do, and whether to be quiet about it."""
    assert run_workers(["print(read_job()['plan'], read_job()['quiet'])"], 1, threads=1, plan=[1, "a"]).error is None
    assert capfd.readouterr().out == "[1, 'a'] False\n"
