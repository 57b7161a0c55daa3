"""Python programs as forks of a process that has torch loaded: `subprocess.Popen` without four seconds of imports.

What runs is what would run: a module or code from its first line, in its own arguments, environment, folder, streams,
session and process group, with camox's modules loaded anew; it can be signalled, killed and waited for. What is not
shown is that the interpreter starts and finds its packages, and what is loaded when: tests/e2e starts real ones.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.helpers.fork_server import SERVER, SERVER_NAME, ask, become_subreaper
from tests.helpers.places import ROOT

# The interpreter itself, even where this module is loaded for a second time, in a program that is a fork.
RealPopen: type[subprocess.Popen[Any]] = getattr(subprocess.Popen, "real", subprocess.Popen)
_PYTHON = sys.executable
_ONE_AT_A_TIME = threading.Lock()
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# By `nohup`, or by a shell for a job in the background. A fork of ours inherits what is ignored like any program.
_IGNORED_AS_TESTS_BEGAN = {
    each for each in _SIGNALS if signal.getsignal(each) == signal.SIG_IGN and SERVER not in os.environ
}
_server: socket.socket | None = None
_process: subprocess.Popen[bytes] | None = None
# An interpreter reads them as it starts.
_READ_AT_START = ("PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS", "LC_ALL")


def _connection() -> socket.socket:
    """To this process's own server, started at the first use."""
    global _server, _process
    if _server is None and SERVER in os.environ:
        process, descriptor, _ = os.environ[SERVER].split()
        if int(process) == os.getpid():
            _server = socket.socket(fileno=int(descriptor))
    if _server is None:
        become_subreaper()
        _server, theirs = socket.socketpair()
        _process = RealPopen(
            [sys.executable, "-m", "tests.helpers.fork_server", str(theirs.fileno())],
            cwd=ROOT,
            # albumentations asks the internet for a newer release of itself where it is imported.
            env={**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        atexit.register(_end_server)
    return _server


def _end_server() -> None:
    """It exits when nobody can ask any more."""
    global _server
    if _server is not None:
        _server.close()
        _server = None
    if _process is not None:
        _process.wait()


def _start(request: dict[str, Any], streams: list[int]) -> int:
    """The process of a new fork. Raises OSError where there is none; the next one has a new server."""
    _wait_for_servers()
    try:
        return ask(_connection(), request, streams)
    except OSError:
        _end_server()
        raise


def _wait_for_servers() -> None:
    """Of programs that have ended: each had one that is left to this process, and has ended with its program."""
    for children in Path("/proc/self/task").glob("*/children"):
        for process in children.read_text().split():
            with suppress(OSError):
                if f"({SERVER_NAME}) Z" in Path(f"/proc/{process}/stat").read_text():
                    os.waitpid(int(process), 0)


class ForkedPopen(RealPopen):  # type: ignore[valid-type, misc]
    """Forks where the command is `python -m ...` or `python -c ...`; starts anything else as ever.

    `_execute_child` is where CPython's own class forks; all around it, such as pipes and time-outs, stays.
    """

    real = RealPopen

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec_fn: Any,
        close_fds: bool,
        pass_fds: Any,
        cwd: Any,
        env: Any,
        startupinfo: Any,
        creationflags: int,
        shell: bool,
        *more: Any,
    ) -> None:
        ends, (_, _, _, _, umask, session, group) = more[:6], more[6:]
        given = os.environ if env is None else env
        is_python = isinstance(args, list) and len(args) > 2 and args[0] == _PYTHON and args[1] in ("-m", "-c")
        is_python &= all(given.get(name) == os.environ.get(name) for name in _READ_AT_START)
        if sys.platform != "linux" or not is_python or executable or preexec_fn or pass_fds or shell:
            rest = (args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell)
            super()._execute_child(*rest, *more)
            return
        streams = [end if end != -1 else stream for stream, end in enumerate((ends[0], ends[3], ends[5]))]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        request = {
            "arguments": [os.fspath(each) for each in args[1:]],
            "cwd": os.getcwd() if cwd is None else os.path.abspath(cwd),  # noqa: PTH109, PTH100
            "environment": {name: value for name, value in given.items() if name != SERVER},
            "session": bool(session),
            "group": None if group in (-1, None) else group,
            "umask": umask,
            "signals": {each.name: _disposition(each) for each in _SIGNALS},
        }
        with _ONE_AT_A_TIME:
            self.pid = _start(request, streams)
        self._child_created = True
        self._close_pipe_fds(*ends)


def _disposition(number: signal.Signals) -> str:
    """A program inherits that a signal is ignored, and nothing else; how pytest was started does not count."""
    is_ignored = signal.getsignal(number) == signal.SIG_IGN and number not in _IGNORED_AS_TESTS_BEGAN
    return "ignored" if is_ignored else "default"
