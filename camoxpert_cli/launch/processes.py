"""Processes that this one starts together: waited for, killed with all that they started, and why they ended badly.

Training workers, trials of training and probes of a machine are all started here. Imports no torch.
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

# Once one has failed, the others are given as long to end by themselves, and to write down why.
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05
# Runs a module of the very package that runs here, wherever that lies, without a folder more on the path: any file in
# it could take the place of a module of that name.
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
# What is known of a process that ended by SIGABRT and told nothing.
ABORTED = "was aborted (SIGABRT): by a library that failed, or by NCCL after it had waited for another rank"


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package, or one that is installed, for `ChildProcesses.start`."""
    package = camoxpert_cli.__name__, str(Path(str(camoxpert_cli.__file__)).absolute())
    return [sys.executable, "-c", _RUN, *package, module, *arguments]


@dataclass(frozen=True)
class Failure:
    """Instead of what a process was started for: `why` there is none, in half a sentence, and what to type against it.

    `exit_code` is that of the error where it is one that a user can mend, else None.
    """

    why: str
    hint: str = ""
    exit_code: int | None = None

    def error(self, message: str) -> CamoxError:
        """To raise where a command cannot go on without it."""
        return error_of(self.exit_code or TrainingError.exit_code, message, self.hint)


@dataclass(frozen=True)
class BadEnd:
    """How a process ended: its return code, below zero for a signal, and what it told with `tell_launcher`, and when.

    As text it goes on from the process's name: "was killed by SIGKILL".
    """

    rank: int
    code: int
    told: dict[str, str] | None
    told_at: float

    @property
    def exit_code(self) -> int:
        """As shells have it: 128 + the signal's number."""
        return 128 - self.code if self.code < 0 else self.code

    @property
    def was_aborted(self) -> bool:
        """Before it could tell why; see `ABORTED`."""
        return self.code == -signal.SIGABRT and self.told is None

    def __str__(self) -> str:
        if self.was_aborted:
            return ABORTED
        return f"was killed by {signal_name(self.code)}" if self.code < 0 else f"ended with exit code {self.code}"


class ChildProcesses:
    """Processes that belong together; the rank of each is how many were started before it.

    `folder` holds their logs and outputs. They are files, for a pipe would stay open as long as anything that a process
    has started. Where they are workers it is also where they meet, give signs of life and tell what they die of.
    `grace` are the seconds that the others have once one has failed; `clock` and `sleep` are time's own.
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
        self.is_hurried = False  # to be set, by a signal handler too, where they have no more than the grace left
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def codes(self) -> list[int | None]:
        """The return code of each, below zero for a signal; None while it runs."""
        return [each.poll() for each in self._processes]

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, log: bool = True, output: bool = False
    ) -> None:
        """Start the next one. Raises OSError where the system does not.

        Without `log` it speaks where this process does. Else what it says goes there, but for what it prints where that
        is kept apart as its `output`.
        """
        rank = len(self._processes)
        # Python, and whatever Python it starts itself, shall import nothing from the current folder, for which an empty
        # entry stands too: `PYTHONPATH=$PYTHONPATH:more` makes one.
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
                # A terminal sends Ctrl-C to this process alone; and what that one starts can be killed with it.
                process_group=0,
            )
        self._processes.append(process)
        _running.add(self)

    def wait(self, patience: float = math.inf, *, well: Sequence[int] = (0,)) -> bool:
        """Until all have ended, or one has failed, or they are hurried, and the others had their grace.

        One that ends with an exit code in `well` has not failed. False where that took `patience` seconds from the
        start or from the last sign of life: files alive* that they touch.
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
        """To those that still run."""
        for each in self._processes:
            each.send_signal(number)

    def kill(self, seconds: float | None = None) -> None:
        """Kill them and all that they have started; wait until they are gone, no longer than `seconds` for each."""
        _running.discard(self)
        for each in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
        for each in self._processes:
            with suppress(subprocess.TimeoutExpired):  # a driver that hangs keeps its process for good
                each.wait(seconds)

    def cause(self) -> BadEnd | None:
        """Of those that ended badly the one that the others did because of; None where there is none."""
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
        """When each was touched, which may be earlier than the last time: clocks are set."""
        signs = set()
        for path in self.folder.glob("alive*"):
            with suppress(OSError):
                signs.add((path.name, path.stat().st_mtime_ns))
        return signs


_running: set[ChildProcesses] = set()


@contextmanager
def ending_them(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Where the main thread is asked to end while the pool's wait for processes, kill those, and start no more."""
    try:
        yield
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for each in list(_running):
            each.kill(0)
        raise


def last_lines(file: Path, count: int = 1) -> str:
    """The end of what a process wrote; empty where it wrote nothing."""
    with suppress(OSError):
        lines = file.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
        return "\n".join(lines[-count:])
    return ""


def signal_name(code: int) -> str:
    """Of the signal that ended a process with this return code."""
    return signal.Signals(-code).name


def cause_of(ends: Iterable[BadEnd]) -> BadEnd | None:
    """The one that the others ended because of; None where there is none.

    One that lost its partners has less to tell than the one it lost, one that was aborted may have waited for another,
    and one that was asked to end has less to tell than one that failed to save. Of those that were asked the first rank
    is the one that saved; else whoever told first comes first, and one that was killed told nothing.
    """

    def order(end: BadEnd) -> tuple[object, ...]:
        was_asked = end.code in EXIT_CODES
        return end.code == PEER_LOST, end.was_aborted, was_asked, 0.0 if was_asked else end.told_at, end.rank

    return min(ends, key=order, default=None)
