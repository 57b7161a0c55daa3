"""Python programs as forks of a process that has torch loaded: `subprocess.Popen` without four seconds of imports.

What runs is what would run: a module or code from its first line, in its own arguments, environment, folder, streams,
session and process group, with camox's modules loaded anew; it can be signalled, killed and waited for. What is not
shown is that the interpreter starts and finds its packages, and what is loaded when: tests/e2e starts real ones.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

from tests.helpers.fork_server import SERVER, ask, become_subreaper
from tests.helpers.places import ROOT

_Popen = subprocess.Popen
_PYTHON = sys.executable
_ONE_AT_A_TIME = threading.Lock()
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# By `nohup`, or by a shell for a job in the background. A fork of ours inherits what is ignored like any program.
_IGNORED_AS_TESTS_BEGAN = {
    each for each in _SIGNALS if signal.getsignal(each) == signal.SIG_IGN and SERVER not in os.environ
}
_server: socket.socket | None = None
_process: subprocess.Popen[bytes] | None = None


def _connection() -> socket.socket:
    """To this process's own server, started at the first use."""
    global _server, _process
    if _server is None and SERVER in os.environ:
        process, descriptor = os.environ[SERVER].split()
        if int(process) == os.getpid():
            _server = socket.socket(fileno=int(descriptor))
    if _server is None:
        become_subreaper()
        _server, theirs = socket.socketpair()
        _process = _Popen(
            [sys.executable, "-m", "tests.helpers.fork_server", str(theirs.fileno())],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
    return _server


class ForkedPopen(_Popen):  # type: ignore[type-arg]
    """Forks where the command is `python -m ...` or `python -c ...`; starts anything else as ever.

    `_execute_child` is where CPython's own class forks; all around it, such as pipes and time-outs, stays.
    """

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
        is_python = isinstance(args, list) and len(args) > 2 and args[0] == _PYTHON and args[1] in ("-m", "-c")
        if sys.platform != "linux" or not is_python or executable or preexec_fn or pass_fds or shell:
            rest = (args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell)
            super()._execute_child(*rest, *more)  # type: ignore[misc]
            return
        streams = [end if end != -1 else stream for stream, end in enumerate((ends[0], ends[3], ends[5]))]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        request = {
            "arguments": [os.fspath(each) for each in args[1:]],
            "cwd": os.getcwd() if cwd is None else os.path.abspath(cwd),  # noqa: PTH109, PTH100
            "environment": {
                name: value for name, value in (os.environ if env is None else env).items() if name != SERVER
            },
            "session": bool(session),
            "group": None if group in (-1, None) else group,
            "umask": umask,
            "signals": {each.name: _disposition(each) for each in _SIGNALS},
        }
        with _ONE_AT_A_TIME:
            self.pid = ask(_connection(), request, streams)
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]


def _disposition(number: signal.Signals) -> str:
    """A program inherits that a signal is ignored, and nothing else; how pytest was started does not count."""
    is_ignored = signal.getsignal(number) == signal.SIG_IGN and number not in _IGNORED_AS_TESTS_BEGAN
    return "ignored" if is_ignored else "default"
