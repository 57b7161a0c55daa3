"""A forked program is, to whoever starts it and to itself, the one that the interpreter would start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.forked import ForkedPopen, RealPopen

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="programs are forks on Linux alone"),
    # Real programs inherit that it is ignored, where pytest runs in the background.
    pytest.mark.usefixtures("ctrl_c"),
]

# What it is given, what it has, and what it inherits.
TELLS = """
import json, os, signal, sys, threading
json.dump(
    {
        "argv": sys.argv,
        "folder": os.getcwd(),
        "environment": {name: value for name, value in os.environ.items() if name != "CAMOX_TESTS_FORK_SERVER"},
        "read": sys.stdin.read(),
        "streams": [os.isatty(number) for number in range(3)],
        "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stderr.errors],
        "name": __name__,
        "own session": os.getsid(0) == os.getpid(),
        "own group": os.getpgid(0) == os.getpid(),
        "child of": os.getppid(),
        "threads": threading.active_count(),
        "signals": [str(signal.getsignal(getattr(signal, name))) for name in ("SIGINT", "SIGTERM", "SIGPIPE")],
        "camox": [name for name in sys.modules if name.startswith(("camoxpert_cli", "tests"))],
    },
    sys.stdout,
)
print("heard", file=sys.stderr)
sys.exit(7)
"""


def told(kind: Any, folder: Path, more: dict[str, str], **how: Any) -> tuple[str, str, int]:
    process = kind(
        [sys.executable, "-c", TELLS, "--an", "argument"],
        cwd=folder,
        env={"A": "1", "OMP_NUM_THREADS": "1", "LC_CTYPE": "C.UTF-8", "PYTHONPATH": "/nowhere"} | more,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )
    output, errors = process.communicate("asked")
    return output, errors, process.returncode


@pytest.mark.parametrize("more", [{}, {"PYTHONUNBUFFERED": "1"}], ids=str)
@pytest.mark.parametrize("how", [{}, {"start_new_session": True}, {"process_group": 0}], ids=str)
def test_same_program(tmp_path: Path, how: dict[str, Any], more: dict[str, str]) -> None:
    """All that a program can tell of itself is the same, and so is what it prints and how it ends."""
    assert told(ForkedPopen, tmp_path, more, **how) == told(RealPopen, tmp_path, more, **how)


ENDS = {
    "a signal": "import os; os.kill(os.getpid(), 9)",
    "an error": "raise KeyError(4)",
    "a sentence": "raise SystemExit('a sentence')",
    "Ctrl-C": "raise KeyboardInterrupt",
    "at exit": "import atexit; atexit.register(print, 'last'); print('first')",
    "a thread": "import threading; threading.Timer(0.05, print, ['later']).start()",
    "at once": "import os; print('lost'); os._exit(3)",
}


@pytest.mark.parametrize("program", ENDS.values(), ids=ENDS)
def test_same_end(program: str) -> None:
    """However a program ends: its exit code or signal, its output, and the last line of its traceback."""
    ends = []
    for kind in (ForkedPopen, RealPopen):
        process = kind([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        output, errors = process.communicate()
        ends.append((process.returncode, output, errors.splitlines()[-1:]))

    assert ends[0] == ends[1]


NESTED = """
import subprocess, sys
inner = "import os, sys, time; print(os.getppid(), 'torch' in sys.modules, flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", inner], stdout=subprocess.PIPE, text=True)
import os
said = child.stdout.readline().split()
child.kill()
print(said[0] == str(os.getpid()), said[1], child.wait())
"""


def test_what_it_starts() -> None:
    """A program's own programs are its children, forks as well, and can be killed and waited for by it."""
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split() == ["True", "True", str(-signal.SIGKILL)]


def test_nothing_is_left() -> None:
    """Once a program is gone, so is the server that was ready for what it might have started, after the next start."""

    def server() -> int:
        inner = "import os; print(os.environ['CAMOX_TESTS_FORK_SERVER'].split()[2])"
        done = subprocess.run([sys.executable, "-c", inner], capture_output=True, text=True, timeout=60, check=True)
        return int(done.stdout)

    end = time.monotonic() + 60
    first = Path(f"/proc/{server()}")
    while first.exists() and time.monotonic() < end:
        server()

    assert not first.exists()


def test_its_own_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose environment an interpreter reads as it starts is no fork."""
    monkeypatch.setenv("CAMOX_TESTS_FORK_SERVER", "0 0 0")
    how = "import sys; print(sys.stdout.encoding, 'torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", how],
        env={**os.environ, "PYTHONIOENCODING": "iso8859-1"},
        capture_output=True,
        check=True,
    )

    assert said.stdout.split() == [b"iso8859-1", b"False"]
