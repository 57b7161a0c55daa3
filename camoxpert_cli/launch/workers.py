"""Start the processes that train one network together on this machine, and exit with one message and one exit code.

torch's own launcher exits with code 1 and a traceback whatever the exit code of a worker, and reports the worker that
died first, which may be one that only lost its peer. It can still start the same workers, also on several machines: see
`parallel.worker`.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.errors import CamoxError, error_of
from camoxpert_cli.launch.processes import GRACE_SECONDS, BadEnd, ChildProcesses, last_lines, python
from camoxpert_cli.parallel.worker import (
    PEER_LOST,
    has_begun,
    log_in,
    move_log,
    outcome_in,
    remedy_in,
    told_by,
    worker_environment,
    write_job,
)
from camoxpert_cli.run_folder import RunFolder
from camoxpert_cli.signals import ASKING, EXIT_CODES, INSISTING, ONE_PRESS, UNHEARD, give_back, take_over
from camoxpert_cli.temporary import temporary_folder

# With these exit codes a restart would fail in the same way, or the user asked to stop.
FINAL = {0, 2, 3, 4, 5, 6, *EXIT_CODES, UNHEARD}
_LOG_LINES = 20


@dataclass(frozen=True)
class Attempt:
    """How the workers of a job ended; `error` is None if all succeeded.

    `remedy` are the settings with which a worker asks to restart; `outcome` is what the first worker reported. Either
    is None if there was none.
    """

    error: CamoxError | None
    began: bool = False
    remedy: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None


def run_workers(
    arguments: Sequence[str],
    processes: int,
    *,
    threads: int,
    run_folder: Path | None = None,
    grace: float = GRACE_SECONDS,
    one_press: float = ONE_PRESS,
    **job: Any,
) -> Attempt:
    """Run `camox <arguments>` in the given number of processes, `threads` each, and wait until all have exited.

    `job` is the content of their job file, and `run_folder` is where their logs are kept. Once one has failed, the
    others have `grace` seconds; a signal repeated within `one_press` seconds counts as the same one. Raises SystemExit
    if the reader of the output is gone.
    """
    with temporary_folder() as folder:
        write_job(folder, argv=sys.argv, quiet=console.is_quiet(), **job)
        command = python("camoxpert_cli", *arguments)
        error = _Workers(folder, command, processes, threads, run_folder, grace, one_press).run()
        return Attempt(error, has_begun(folder), remedy_in(folder), outcome_in(folder))


class _Workers:
    """The workers of one attempt, each running `command`. They meet, and report why they fail, in `folder`."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        processes: int,
        threads: int,
        run_folder: Path | None,
        grace: float,
        one_press: float,
    ) -> None:
        self.folder = folder
        self._run_folder = None if run_folder is None else run_folder.absolute()
        self._children = ChildProcesses(folder, grace=grace)
        self._command = command
        self._processes = processes
        self._threads = threads
        self._asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._one_press = one_press

    @property
    def run_folder(self) -> Path | None:
        """The run folder, once training has begun there."""
        return self._run_folder if has_begun(self.folder) else None

    def run(self) -> CamoxError | None:
        """Wait for all, and stop all once one has failed; return why they did not all succeed, if so."""
        before = take_over(self._pass_on)  # signals ignored here, as under `nohup`, are also ignored in the workers
        try:
            for rank in range(self._processes):
                environment = worker_environment(self.folder, rank, self._processes, self._threads)
                self._children.start(self._command, environment, log=rank > 0)
            # One that was asked to stop has saved, and the others may still be saving.
            self._children.wait(well=(0, *EXIT_CODES))
            return self._explain()
        finally:
            self._children.kill()
            self._keep_logs()
            give_back(before)

    def _explain(self) -> CamoxError | None:
        """The error of the first worker that did more than lose its peers."""
        codes = self._children.codes
        if self._children.is_hurried and self._asked is not None and None in codes:
            again = ASKING[self._asked].removeprefix("a ")
            return error_of(128 + self._asked, f"stopped immediately by a second {again}", self._resume())
        end = self._children.cause()
        if end is None:
            return None
        silent = codes.index(None) if None in codes else None
        if silent is not None and end.code == PEER_LOST:
            return error_of(
                end.code,
                f"rank {silent} stopped responding, and the others timed out{self._where(silent)}",
                self._resume() or "--set run.collective_timeout=1h, to wait longer; see camox guide troubleshooting",
            )
        if silent is not None and end.was_aborted:
            return error_of(
                PEER_LOST,
                f"rank {silent} stopped responding{self._where(silent)}, "
                f"and rank {end.rank} {end}{self._where(end.rank)}",
                self._without_peers(),
            )
        if end.code == UNHEARD:
            raise SystemExit(end.code)
        if self._asked is not None and end.code == -self._asked:  # it had no handler yet
            return error_of(end.exit_code, f"stopped by {ASKING[self._asked]}", self._resume())
        return self._told(end)

    def _told(self, end: BadEnd) -> CamoxError:
        told, where = end.told, self._where(end.rank)
        if told is None:
            hint = self._without_peers() if end.was_aborted else self._resume()
            log = self._children.log(end.rank)
            details = "" if self.run_folder is not None else last_lines(log, _LOG_LINES)
            return error_of(end.exit_code, f"rank {end.rank} {end}{where}", hint, details)
        # What all ranks found, or rank 0, whose output the user sees.
        if end.code in EXIT_CODES or (end.code != 1 and told == told_by(self.folder, 0)):
            return error_of(end.exit_code, **told)
        message = f"rank {end.rank}: {told['message']}{where}"
        return error_of(end.exit_code, message, told["hint"] or self._resume(), told["details"])

    def _without_peers(self) -> str:
        command = self._resume() or "camox doctor"
        return f"{command}; NCCL_P2P_DISABLE=1 helps if GPUs cannot access each other; see camox guide troubleshooting"

    def _resume(self) -> str:
        if self.run_folder is None or not RunFolder(self.run_folder).holds_checkpoint:
            return ""
        return RunFolder(self.run_folder).resume_command

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked, self._asked_at = signal.Signals(number), now
        # A worker that waits for others cannot react.
        is_second = self._asked == number and now - self._asked_at > self._one_press
        self._children.is_hurried |= is_second and number in INSISTING
        self._children.send_signal(number)

    def _kept_log(self, rank: int) -> Path | None:
        """In the run folder, once training has begun; rank 0 has no log, it prints here."""
        if rank == 0 or self.run_folder is None:
            return None
        return log_in(self.run_folder, rank)

    def _where(self, rank: int) -> str:
        log = self._kept_log(rank)
        return "" if log is None else f"; its log is {log}"

    def _keep_logs(self) -> None:
        for rank in range(self._processes):
            target = self._kept_log(rank)
            if target is None:
                continue
            with suppress(OSError):
                move_log(self._children.log(rank), target)
