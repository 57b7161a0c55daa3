"""A scheduler that runs the very same command again and again, kills it at random moments, and knows nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from camoxpert_cli.checkpoints.format import read_checkpoint
from tests.helpers.places import ROOT
from tests.helpers.processes import TIMEOUT, all_signals_heard, is_running

# Seconds: of a kill at any time, and of one after a new step, which is within the next step or the save between them.
_ANY_TIME, _WITHIN = 3.0, 0.3


@dataclass
class Job:
    """What the scheduler runs: `command` for a number of processes, which trains in `folder`.

    `history` tells of each run of the command, for how many processes, what was killed, and how it exited; `orphans`
    are processes of runs that were killed.
    """

    command: Callable[[int], list[str]]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    orphans: set[int] = field(default_factory=set)

    @property
    def log(self) -> Path:
        """What the commands printed; a pipe would have to be waited for until their last process has ended."""
        return self.folder.with_suffix(".log")

    def run(self, gpus: int) -> int:
        """The exit code of a run that is left alone."""
        return self._end(self._start(gpus), f"{gpus} left alone")

    def run_and_kill(self, gpus: int, draw: np.random.Generator) -> int:
        """The exit code of a run that is killed at a random moment, unless it has ended by then.

        Either all of its processes are killed or one of them. Those that are left may still be saving when this
        returns, as on a cluster whose scheduler lost sight of them.
        """
        before, process = self._steps, self._start(gpus)
        # Two of three after the next step that is logged, the others at any time from the start on.
        after_a_step = bool(draw.integers(3))
        late = time.monotonic() + TIMEOUT
        while after_a_step and process.poll() is None and self._steps == before:
            assert time.monotonic() < late, self.told
            time.sleep(0.005)
        time.sleep(float(draw.uniform(0, _WITHIN if after_a_step else _ANY_TIME)))
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)  # it starts no more while its processes are counted
        alive = [process.pid, *_started_by(process.pid)] if process.poll() is None else []
        self.orphans.update(alive[1:])
        victims = alive if not alive or draw.integers(2) else [alive[int(draw.integers(len(alive)))]]
        _kill(victims)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        who = "all" if len(victims) > 1 else "the first" if victims == alive[:1] else f"one of {len(alive)}"
        when = "after a step" if after_a_step else "at any time"
        return self._end(process, f"{gpus}, killed {who} {when}" if alive else f"{gpus}, ended before it was killed")

    def wait_for_orphans(self) -> None:
        """Until no process is left of any run: each has to end by itself, for nobody waits for it any more."""
        late = time.monotonic() + TIMEOUT
        while any(is_running(each) for each in self.orphans):
            assert time.monotonic() < late, f"processes are left of {self.orphans}; {self.told}"
            time.sleep(0.02)

    def _bury(self) -> None:
        """Collect orphans that have ended, as the first process of a machine does; one that is dead does not write."""
        for each in self.orphans:
            with suppress(ChildProcessError):
                os.waitpid(each, os.WNOHANG)

    @property
    def told(self) -> str:
        """All that is known about the runs, for a test that fails."""
        return "\n".join([*self.history, self.log.read_text(encoding="utf-8", errors="replace")])

    @property
    def _steps(self) -> int:
        log = self.folder / "metrics.jsonl"
        return log.read_text(encoding="utf-8").count('"step"') if log.exists() else 0

    def _start(self, gpus: int) -> subprocess.Popen[bytes]:
        self._bury()
        with all_signals_heard(), self.log.open("ab") as log:
            return subprocess.Popen(
                self.command(gpus),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
            )

    def _end(self, process: subprocess.Popen[bytes], what: str) -> int:
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            _kill([process.pid, *_started_by(process.pid)])
            raise AssertionError(f"{what} did not end within {TIMEOUT} s; {self.told}") from None
        self.history.append(f"{what}: exit code {code}")
        return code


def run_until_done(job: Job, first: int, ranks: Sequence[int], kills: int, draw: np.random.Generator) -> None:
    """Run the job until it exits with 0: killed `kills` times, each time on a random one of `ranks`, then left alone.

    Until there is a checkpoint, that is `first`: a run that has saved nothing starts anew.
    """
    for _ in range(kills):
        gpus = int(draw.choice(ranks)) if (job.folder / "last.pth").exists() else first
        if job.run_and_kill(gpus, draw) == 0:
            break
        if (job.folder / "last.pth").exists():
            read_checkpoint(job.folder / "last.pth")  # never an unreadable one
    else:
        gpus = int(draw.choice(ranks)) if (job.folder / "last.pth").exists() else first
        assert job.run(gpus) == 0, job.told
    job.wait_for_orphans()


def _started_by(process: int) -> list[int]:
    """The processes that a process has started, and those that they have; not servers of forks, each in its session."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if session != path.parent.name and state not in ("Z", "X"):
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found, new = [], [process]
    while new:
        new = [child for each in new for child in children.get(each, [])]
        found += new
    return found


def _kill(processes: Sequence[int]) -> None:
    for each in processes:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
