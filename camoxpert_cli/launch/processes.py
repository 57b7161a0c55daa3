"""Child processes started as a group: wait for them, kill them with their descendants, and find out why they failed.

Training workers, training trials and machine probes are all started here. Does not import torch.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import camoxpert_cli
from camoxpert_cli.errors import CamoxError, TrainingError, error_of
from camoxpert_cli.parallel.worker import PEER_LOST, told_at, told_by
from camoxpert_cli.signals import EXIT_CODES

# Once one has failed, the others have this long to exit on their own and record why.
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05
# Runs a module of exactly the package that runs here, wherever it is, without adding a folder to sys.path: any file in
# that folder could shadow a module of the same name.
_RUN = """
import runpy, signal, sys
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of an import, until the module listens
from importlib.util import module_from_spec, spec_from_file_location
name, place, module, *arguments = sys.argv[1:]
if name not in sys.modules:
    spec = spec_from_file_location(name, place)
    sys.modules[name] = package = module_from_spec(spec)
    spec.loader.exec_module(package)
sys.argv[1:] = arguments
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
# What is known about a process that died from SIGABRT without a message.
ABORTED = "was aborted (SIGABRT) by a library that failed, or by NCCL after waiting for another rank"


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package, or an installed one, for `ChildProcesses.start`."""
    package = camoxpert_cli.__name__, str(Path(str(camoxpert_cli.__file__)).absolute())
    return [sys.executable, "-c", _RUN, *package, module, *arguments]


@dataclass(frozen=True)
class Failure:
    """What a process returns instead of a result: `why` there is none, as part of a sentence, and what to type next.

    `exit_code` is that of the error if the user can fix it, otherwise None.
    """

    why: str
    hint: str = ""
    exit_code: int | None = None

    def error(self, message: str) -> CamoxError:
        """Return an error to raise if a command cannot continue without the result."""
        return error_of(self.exit_code or TrainingError.exit_code, message, self.hint)


@dataclass(frozen=True)
class BadEnd:
    """The failure of a process: its return code, negative for a signal, and its message and time from `tell_launcher`.

    As text it continues a sentence that starts with the process's name: "was killed by SIGKILL".
    """

    rank: int
    code: int
    told: dict[str, str] | None
    told_at: float

    @property
    def exit_code(self) -> int:
        """The exit code as in a shell: 128 + the signal's number."""
        return 128 - self.code if self.code < 0 else self.code

    @property
    def was_aborted(self) -> bool:
        """Whether it was aborted before it could report why; see `ABORTED`."""
        return self.code == -signal.SIGABRT and self.told is None

    def __str__(self) -> str:
        if self.was_aborted:
            return ABORTED
        return f"was killed by {signal_name(self.code)}" if self.code < 0 else f"exited with code {self.code}"


class ChildProcesses:
    """A group of child processes; the rank of each is the number of processes started before it.

    `folder` contains their logs and outputs. These are files because a pipe would stay open as long as any descendant
    of a process. Workers also meet there, signal that they are alive and report why they fail. `grace` is the number of
    seconds that the others have once one has failed; `clock` and `sleep` are `time.monotonic` and `time.sleep`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        grace: float = GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder
        self._grace, self._clock, self._sleep = grace, clock, sleep
        self.is_hurried = False  # set, possibly by a signal handler, to leave them only the grace period
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def codes(self) -> list[int | None]:
        """The return code of each, negative for a signal; None while it runs."""
        return [each.poll() for each in self._processes]

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, log: bool = True, output: bool = False
    ) -> None:
        """Start the next process. Raises OSError if the system cannot.

        Without `log` it shares this process's stdout and stderr. Otherwise both go to its log, except that with
        `output` its stdout goes to a separate file.
        """
        rank = len(self._processes)
        # Python, and any Python that it starts itself, must not import from the current folder, which an empty entry
        # also stands for: `PYTHONPATH=$PYTHONPATH:more` creates one.
        environment = {**environment, "PYTHONSAFEPATH": "1"}
        if path := environment.get("PYTHONPATH"):
            environment["PYTHONPATH"] = os.pathsep.join(each for each in path.split(os.pathsep) if each)
        with ExitStack() as stack:
            said = stack.enter_context(self.log(rank).open("wb")) if log else None
            printed = stack.enter_context(self.output(rank).open("wb")) if output else said
            process = subprocess.Popen(
                list(command),
                env=environment,
                stdin=subprocess.DEVNULL if log else None,
                stdout=printed,
                stderr=said,
                # A terminal then sends Ctrl-C to this process only, and the child can be killed with its descendants.
                process_group=0,
            )
        self._processes.append(process)
        _running.add(self)

    def wait(self, patience: float = math.inf, *, well: Sequence[int] = (0,)) -> bool:
        """Wait until all have exited, or until one has failed or they are hurried and the grace period is over.

        An exit code in `well` is not a failure. Returns False if `patience` seconds pass after the start or the last
        sign of life, the files alive* that they touch.
        """
        end, alive_at, last_signs = math.inf, self._clock(), self._signs()
        while None in (codes := self.codes):
            now = self._clock()
            if end == math.inf and (self.is_hurried or any(code not in (None, *well) for code in codes)):
                end = now + self._grace
            if patience < math.inf and (signs := self._signs()) != last_signs:
                alive_at, last_signs = now, signs
            if now >= end:
                return True
            if now - alive_at >= patience:
                return False
            self._sleep(_POLL_SECONDS)
        return True

    def send_signal(self, number: int) -> None:
        """Send a signal to those that are still running."""
        for each in self._processes:
            each.send_signal(number)

    def kill(self, seconds: float | None = None) -> None:
        """Kill them and their descendants; wait until they are gone, at most `seconds` for each."""
        _running.discard(self)
        for each in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
        for each in self._processes:
            with suppress(subprocess.TimeoutExpired):  # a hanging driver never releases its process
                each.wait(seconds)

    def cause(self) -> BadEnd | None:
        """Return the failure that caused the others; None if there is none."""
        return cause_of(
            BadEnd(rank, code, told_by(self.folder, rank), told_at(self.folder, rank))
            for rank, code in enumerate(self.codes)
            if code
        )

    def log(self, rank: int) -> Path:
        return self.folder / f"rank{rank}.log"

    def output(self, rank: int) -> Path:
        return self.folder / f"rank{rank}.out"

    def _signs(self) -> set[tuple[str, int]]:
        """When each was touched; compare for equality only, because clocks can be set back."""
        signs = set()
        for path in self.folder.glob("alive*"):
            with suppress(OSError):
                signs.add((path.name, path.stat().st_mtime_ns))
        return signs


_running: set[ChildProcesses] = set()


@contextmanager
def ending_them(pool: ThreadPoolExecutor) -> Iterator[None]:
    """If the main thread is interrupted while the pool waits for processes, kill those and start no more."""
    try:
        yield
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for each in list(_running):
            each.kill(0)
        raise


def last_lines(file: Path, count: int = 1) -> str:
    """Return the last lines that a process wrote; empty if it wrote nothing."""
    with suppress(OSError):
        lines = file.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
        return "\n".join(lines[-count:])
    return ""


def signal_name(code: int) -> str:
    """Return the name of the signal that ended a process with this return code."""
    return signal.Signals(-code).name


def cause_of(ends: Iterable[BadEnd]) -> BadEnd | None:
    """Return the failure that caused the others; None if there is none.

    A process that lost its peers explains less than the one it lost, an aborted one may only have waited for another,
    and one that was asked to stop explains less than one that failed to save. Among processes that were asked to stop,
    the lowest rank wins, since it saved; otherwise the one that reported first, where a killed process, which reported
    nothing, counts as the first.
    """

    def order(end: BadEnd) -> tuple[object, ...]:
        was_asked = end.code in EXIT_CODES
        return end.code == PEER_LOST, end.was_aborted, was_asked, 0.0 if was_asked else end.told_at, end.rank

    return min(ends, key=order, default=None)
