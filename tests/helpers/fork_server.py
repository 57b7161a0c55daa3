"""Starts Python programs as forks of a process that has loaded torch, which takes seconds.

What camox itself imports is not loaded here, so a program runs camox's modules from the first line on, with its own
arguments, environment, folder and streams. What libraries read from the environment as they are imported is this
server's, and so is the order of sets of strings. Linux only; see `forked.ForkedPopen` for how to ask.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

# What camox and its tests load, which takes four seconds.
PRELOADED = (
    "numpy torch torch.distributed torch.utils.data torchvision timm cv2 albumentations safetensors.torch yaml "
    "typer rich.console rich.progress rich.table rich.traceback huggingface_hub jinja2 matplotlib.figure "
    "matplotlib.backends.backend_agg pytest hypothesis"
).split()
# Says to a program that was started here which file leads to its own server: "process file server's-process".
SERVER = "CAMOX_TESTS_FORK_SERVER"
# What such a server is called in /proc; whoever started the program inherits it.
SERVER_NAME = "camox-forks"
# Within which a fork is there, on a busy machine too.
_PATIENCE = 120
_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36
_DEFAULT_WARNINGS = warnings.filters[:]


def ask(connection: socket.socket, request: dict[str, Any], streams: list[int]) -> int:
    """The process that a server started with these three `streams`: a child of whoever calls `become_subreaper`.

    Raises OSError where there is no server any more, or it could not fork.
    """
    connection.settimeout(_PATIENCE)
    content = json.dumps(request).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
    connection.sendmsg([len(content).to_bytes(8, "little")], rights)
    connection.sendall(content)
    if not (process := int.from_bytes(_read(connection, 8), "little")):
        raise OSError("the fork server could not fork")
    return process


def become_subreaper() -> None:
    """Take over what the processes that this one started leave behind, so that it can be waited for."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _read(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise ConnectionResetError("the fork server has ended")
        content += part
    return content


def _next_request(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    streams = array.array("i")
    head, rights, _, _ = connection.recvmsg(8, socket.CMSG_LEN(3 * streams.itemsize))
    for _, _, content in rights:
        streams.frombytes(content)
    size = int.from_bytes(head + _read(connection, 8 - len(head)), "little")
    return json.loads(_read(connection, size)), list(streams)


def _serve(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork at each request, and return it in the new process alone; exit when the client does."""
    while True:
        try:
            request, streams = _next_request(connection)
        except OSError:
            os._exit(0)
        told, tell = os.pipe()
        between = os.fork()
        if between == 0:
            between = os.getpid()
            program = os.fork()
            if program == 0:
                while os.getppid() == between:
                    time.sleep(0.001)
                return request, streams
            os.write(tell, program.to_bytes(8, "little"))
            os._exit(0)  # its child is now that of the next subreaper above: whoever asked
        os.close(tell)
        os.waitpid(between, 0)
        pid = os.read(told, 8)  # nothing where there was no fork
        for descriptor in (told, *streams):
            os.close(descriptor)
        connection.sendall(pid or bytes(8))


def _detach() -> None:
    """A server holds no stream whose end somebody may wait for, and ignores signals that are meant for programs."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _take(request: dict[str, Any], streams: list[int]) -> None:
    """Streams, session, folder, signals and environment as the request has them; all other files are closed."""
    held = [os.dup(os.dup(stream)) if stream < 3 else stream for stream in streams]
    for descriptor, stream in enumerate(held):
        os.dup2(stream, descriptor)
    os.closerange(3, 1024)
    if request["session"]:
        os.setsid()
    elif request["group"] is not None:
        os.setpgid(0, request["group"])
    if request["umask"] >= 0:
        os.umask(request["umask"])
    for name, handler in request["signals"].items():
        number = signal.Signals[name]
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if handler == "ignored" else default)
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["cwd"] is not None:
        os.chdir(request["cwd"])


def _run(request: dict[str, Any], base: list[str]) -> None:
    """`python -m module ...` or `python -c code ...`."""
    import numpy as np
    import torch

    np.random.seed()  # forks would all draw the same
    how, what, *arguments = request["arguments"]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    warnings.filters[:] = _DEFAULT_WARNINGS  # type: ignore[index]
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for name, descriptor, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        raw = open(descriptor, "wb", buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
        by_line = not unbuffered and (os.isatty(descriptor) or descriptor == 2)
        stream = io.TextIOWrapper(raw, errors=errors, line_buffering=by_line, write_through=unbuffered)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    tempfile.tempdir = None  # to be found anew, by this environment
    path = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:] = [*path, *base]
    importlib.invalidate_caches()
    for folder in path:
        custom = os.path.join(folder, "sitecustomize.py")  # noqa: PTH118
        if os.path.exists(custom):  # noqa: PTH110
            runpy.run_path(custom)
            break
    if not os.environ.get("PYTHONSAFEPATH"):
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    if how == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *arguments]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


def _end(program: Callable[..., None], *arguments: Any) -> None:
    """As the interpreter ends, but for taking torch apart module by module, which takes half a second."""
    code: Any = 0
    try:
        program(*arguments)
    except SystemExit as error:
        code = error.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code or 0)


def _main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    base = sys.path[1:]  # without the folder that `-m` put there
    connection = socket.socket(fileno=int(sys.argv[1]))
    while True:
        _detach()
        request, streams = _serve(connection)
        connection.detach()
        _take(request, streams)
        ours, connection = socket.socketpair()
        # A server of its own that has loaded no more than the first one, for what the program starts itself.
        if own_server := os.fork():
            break
        ctypes.CDLL(None).prctl(_PR_SET_NAME, SERVER_NAME.encode(), 0, 0, 0)
        ours.close()
    connection.close()
    become_subreaper()
    os.environ[SERVER] = f"{os.getpid()} {ours.detach()} {own_server}"
    subprocess.Popen = importlib.import_module("tests.helpers.forked").ForkedPopen  # type: ignore[misc]
    # A program may find other ones under these names where it runs.
    for name in [each for each in sys.modules if each.split(".")[0] == "tests"]:
        del sys.modules[name]
    _end(_run, request, base)


if __name__ == "__main__":
    _main()
