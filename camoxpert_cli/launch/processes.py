"""Starts the processes that train one network together on this machine, and ends with one message and one exit code.

torch's own launcher ends with exit code 1 and a traceback whatever a worker ended with, and reports whichever worker
died first, which may be one that lost its partner. It can start the same workers all the same, on several machines too:
see `is_worker`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.errors import CamoxError, error_of
from camoxpert_cli.parallel.worker import (
    ABORTED,
    ASKED,
    PEER_LOST,
    cause_first,
    told_by,
    was_aborted,
    worker_environment,
    write_job,
)
from camoxpert_cli.run_folder import RunFolder

# Whoever read the output has gone, and nobody is there to be told.
_UNHEARD = 141
# After these the same command would end in the same way, or was asked to end.
FINAL = {0, 2, 3, 4, 5, 6, *ASKED, _UNHEARD}
_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "a request to terminate"}
_POLL_SECONDS = 0.05
# A worker that failed writes down why before it ends; the others are given as long to find out by themselves.
_GRACE_SECONDS = 5.0
_LOG_LINES = 20
# Seconds within which a signal that comes twice is one, as for a run of one process.
_ONE_PRESS = 1.0


@dataclass(frozen=True)
class Attempt:
    """How the workers of a job ended: the `error` is None where all ended well.

    `remedy` are the settings with which a worker wants to start again, where one does.
    """

    error: CamoxError | None
    remedy: dict[str, Any] | None


def run_workers(
    arguments: Sequence[str], processes: int, *, threads: int, run_folder: Path | None = None, **job: Any
) -> Attempt:
    """Run `camox <arguments>` in so many processes, `threads` for each, and wait until all have ended.

    `job` is what each finds in its job, and `run_folder` where it keeps what the user will look for. Raises SystemExit
    where nobody is left to be told how they ended.
    """
    with tempfile.TemporaryDirectory(prefix="camox-") as folder:
        write_job(Path(folder), quiet=console.is_quiet(), **job)
        group = _Group(Path(folder), arguments, processes, threads, run_folder)
        return Attempt(group.run(), group.remedy)


class _Group:
    """The workers of one attempt. `folder` holds their meeting point, the logs and what each died of."""

    def __init__(
        self, folder: Path, arguments: Sequence[str], processes: int, threads: int, run_folder: Path | None
    ) -> None:
        self.folder = folder
        self._run_folder = None if run_folder is None else run_folder.absolute()
        self.workers: list[subprocess.Popen[bytes]] = []
        self._command = [sys.executable, "-m", "camoxpert_cli", *arguments]
        self._processes = processes
        self._threads = threads
        self._asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._hurried = False

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run, once it is there."""
        return self._run_folder if self._run_folder is not None and self._run_folder.is_dir() else None

    @property
    def remedy(self) -> dict[str, Any] | None:
        """What a worker left with `tell_remedy`."""
        for path in sorted(self.folder.glob("remedy*.json")):
            with suppress(OSError, ValueError):
                remedy: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                return remedy
        return None

    def run(self) -> CamoxError | None:
        """Wait for all; end all once one has failed. Returns why they did not all end well, where they did not."""
        before = {
            number: signal.signal(number, self._pass_on)
            for number in _SIGNALS
            # Only there may handlers be set. Ctrl-C is ignored in a background job, and so it is in its workers.
            if threading.current_thread() is threading.main_thread()
            and signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
        }
        try:
            for rank in range(self._processes):
                self._start(rank)
            self._wait()
            return self._explain()
        finally:
            for worker in self.workers:
                with suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)  # with the processes that load its pictures
                worker.wait()
            self._keep_logs()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, rank: int) -> None:
        environment = worker_environment(self.folder, rank, self._processes, self._threads)
        # A group of its own: a terminal sends Ctrl-C to this process alone, which passes it on once.
        if rank == 0:
            self.workers.append(subprocess.Popen(self._command, env=environment, process_group=0))
            return
        with self._log(rank).open("wb") as log:
            self.workers.append(
                subprocess.Popen(
                    self._command,
                    env=environment,
                    process_group=0,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def _wait(self) -> None:
        """Until all have ended; once one has failed, or all were asked twice, a little longer."""
        end = math.inf
        while any(worker.poll() is None for worker in self.workers) and time.monotonic() < end:
            has_failed = any(worker.poll() not in (None, 0, *ASKED) for worker in self.workers)
            if end == math.inf and (has_failed or self._hurried):
                end = time.monotonic() + _GRACE_SECONDS
            time.sleep(_POLL_SECONDS)

    def _explain(self) -> CamoxError | None:
        """What the first worker that did not only lose its partners ended of."""
        codes = [worker.poll() for worker in self.workers]
        if self._hurried and self._asked is not None and None in codes:
            again = _SIGNALS[self._asked].removeprefix("a ")
            return error_of(128 + self._asked, f"stopped at once by a second {again}", self._go_on())
        failed = [(code, rank) for rank, code in enumerate(codes) if code]
        if not failed:
            return None
        code, rank = min(failed, key=lambda each: cause_first(self.folder, *each))
        if None in codes and code == PEER_LOST:
            silent = codes.index(None)
            return error_of(
                code,
                f"rank {silent} does not answer, and the others gave up{self._where(silent)}",
                self._go_on() or "--set run.collective_timeout=1h waits longer",
            )
        if None in codes and was_aborted(self.folder, code, rank):
            silent = codes.index(None)
            return error_of(
                PEER_LOST,
                f"rank {silent} does not answer{self._where(silent)}, and rank {rank} {ABORTED}{self._where(rank)}",
                self._without_peers(),
            )
        if code == _UNHEARD:
            raise SystemExit(code)
        if self._asked is not None and code == -self._asked:  # it had not begun to listen
            return error_of(128 - code, f"stopped by {_SIGNALS[self._asked]}", self._go_on())
        return self._told(rank, code)

    def _told(self, rank: int, code: int) -> CamoxError:
        """Why the worker of this rank ended with `code`, below zero for a signal."""
        told = told_by(self.folder, rank)
        exit_code = 128 - code if code < 0 else code
        if told is None:
            cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            hint = self._go_on()
            if was_aborted(self.folder, code, rank):
                cause, hint = ABORTED, self._without_peers()
            details = "" if self.run_folder is not None else self._end_of_log(rank)
            return error_of(exit_code, f"rank {rank} {cause}{self._where(rank)}", hint, details)
        # What all found, or the one that speaks.
        if code in ASKED or (code != 1 and told == told_by(self.folder, 0)):
            return error_of(exit_code, **told)
        message = f"rank {rank}: {told['message']}{self._where(rank)}"
        return error_of(exit_code, message, told["hint"] or self._go_on(), told["details"])

    def _without_peers(self) -> str:
        return f"{self._go_on() or 'camox doctor'}; NCCL_P2P_DISABLE=1 helps where GPUs cannot reach each other"

    def _go_on(self) -> str:
        if self._run_folder is None or not RunFolder(self._run_folder).holds_checkpoint:
            return ""
        return RunFolder(self._run_folder).resume_command

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked, self._asked_at = signal.Signals(number), now
        # A worker that waits for others cannot listen.
        self._hurried |= self._asked == number and now - self._asked_at > _ONE_PRESS
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(number)

    def _log(self, rank: int) -> Path:
        return self.folder / f"rank{rank}.log"

    def _kept_log(self, rank: int) -> Path | None:
        """Beside the run's other files, where it got so far; rank 0 has none, it speaks here."""
        if rank == 0 or self.run_folder is None:
            return None
        return self.run_folder / "logs" / f"rank{rank}.log"

    def _where(self, rank: int) -> str:
        log = self._kept_log(rank)
        return "" if log is None else f"; its log is {log}"

    def _end_of_log(self, rank: int) -> str:
        with suppress(OSError):
            lines = self._log(rank).read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(lines[-_LOG_LINES:])
        return ""

    def _keep_logs(self) -> None:
        for rank in range(1, len(self.workers)):
            target = self._kept_log(rank)
            if target is None:
                continue
            with suppress(OSError):
                target.parent.mkdir(exist_ok=True)
                with target.open("ab") as kept, self._log(rank).open("rb") as log:
                    shutil.copyfileobj(log, kept)
