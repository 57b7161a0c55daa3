"""Questions in processes of their own: whatever those do, there is an answer or a reason."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from camoxpert_cli.launch import run_probe
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_probe import run_together
from tests.helpers.processes import is_running

GENEROUS = 120.0
SLEEP = ["sleep", "600"]


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def outcome(code: str) -> str | Failure:
    (only,) = run_together([python(code)], seconds=GENEROUS)
    return only


def test_output() -> None:
    """What a command prints is its answer."""
    assert outcome("print('fine')") == "fine\n"


def test_hang(tmp_path: Path) -> None:
    """What does not end is killed, with all that it has started, which may hold its output open."""
    pid = tmp_path / "pid"
    for seconds in (0.5, 5, 50):
        (hanging,) = run_together([["sh", "-c", f"sleep 600 & echo $! > {pid}; sleep 600"]], seconds=seconds)
        assert hanging == Failure(f"no answer within {seconds} s")
        if pid.exists() and pid.read_text():  # a busy machine may need longer to start it
            break
    end = time.monotonic() + GENEROUS
    while is_running(int(pid.read_text())):  # it may take the system a moment
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.abort()", "its process was killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 11)", "its process was killed by SIGSEGV"),
        ("raise RuntimeError('no such card')", "RuntimeError: no such card"),
        ("print('bad luck'); raise SystemExit(3)", "bad luck"),
        ("raise SystemExit(3)", "it exited with code 3"),
    ],
)
def test_crash(code: str, why: str) -> None:
    """A crash is told by its signal or by the last thing that was said."""
    assert outcome(code) == Failure(why)


def test_command_that_is_not_there() -> None:
    """A missing program is a reason too."""
    (only,) = run_together([["/nowhere/nvidia-smi"]], seconds=GENEROUS)

    assert only == Failure("nvidia-smi was not found on this machine")


def test_others_end_with_the_one_that_failed() -> None:
    """Where one of several fails, the others are not waited for until the time is up."""
    started = time.monotonic()
    waiting, failed, _ = run_together(
        [SLEEP, python("raise ValueError('lost')"), ["true"]], seconds=GENEROUS, grace=0.05
    )

    assert waiting == Failure("stopped because another process failed")
    assert failed == Failure("ValueError: lost")
    assert time.monotonic() - started < GENEROUS / 2


def test_launcher_variables_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher left in the environment would make torch wait for other processes."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    code = "import os; print(os.environ.get('RANK'), os.environ['CUDA_VISIBLE_DEVICES'], os.environ['MORE'])"

    (seen,) = run_together([python(code)], seconds=GENEROUS, environment={"MORE": "2"})

    assert seen == "None 1 2\n"
    assert os.environ["RANK"] == "3"


def test_an_error_that_can_be_mended() -> None:
    """What a probe says of camox's own errors arrives whole: hint and exit code too."""
    answer = '{"error": "no GPU has code for it", "hint": "camox doctor", "exit_code": 5}'

    assert run_probe._decode(f"a library's line\n{answer}\n") == Failure("no GPU has code for it", "camox doctor", 5)
