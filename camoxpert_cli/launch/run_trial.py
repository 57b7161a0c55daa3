"""Trials of training in processes of their own: a crash, a lack of memory or a hang of one ends that one alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from camoxpert_cli.errors import CamoxError
from camoxpert_cli.launch.trial import Measurement, Trial
from camoxpert_cli.parallel.strategy import processes_of
from camoxpert_cli.parallel.worker import ABORTED, cause_first, told_by, was_aborted, worker_environment

# Seconds without a sign of life: starting takes half a minute on a slow disk, a step on a slow CPU almost as long.
PATIENCE = 180.0
_WORKER = "camoxpert_cli.launch.trial"
_GRACE_SECONDS = 5.0
_TRAINING = 6
# Exit codes that say what a user can do; others are those of a training that failed.
_ANNOUNCED = (2, 3, 4, 5)
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Failure:
    """Why a trial has no measurement, what to type against it, and what a command that needs it ends with."""

    message: str
    hint: str = ""
    exit_code: int = _TRAINING

    def error(self, message: str) -> CamoxError:
        """To raise where a command cannot go on without the measurement."""
        error = CamoxError(message, self.hint)
        error.exit_code = self.exit_code
        return error


Outcome: TypeAlias = Measurement | Failure


def run_trial(trial: Trial, *, threads: int, patience: float = PATIENCE, worker: str = _WORKER) -> Outcome:
    """Run the trial, in as many processes as its strategy needs; `worker` is the module that they run.

    It fails where a process does, or where none gives a sign of life for `patience` seconds.
    """
    processes = processes_of(trial.config.run.strategy, trial.gpus)
    with tempfile.TemporaryDirectory(prefix="camox-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        (folder / "trial.json").write_text(trial.to_text(), encoding="utf-8")
        workers: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(processes):
                with (folder / f"rank{rank}.log").open("wb") as log:
                    workers.append(
                        subprocess.Popen(
                            [sys.executable, "-m", worker, temporary],
                            env=worker_environment(folder, rank, processes, threads),
                            process_group=0,
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                        )
                    )
            failure = _wait(folder, workers, patience)
        finally:
            for each in workers:
                with suppress(ProcessLookupError):
                    os.killpg(each.pid, signal.SIGKILL)  # with the processes that load its pictures
                each.wait()
        if failure is not None:
            return failure
        return Measurement(**json.loads((folder / "measurement.json").read_text(encoding="utf-8")))


def _wait(folder: Path, workers: list[subprocess.Popen[bytes]], patience: float) -> Failure | None:
    """Until all have ended; once one has failed, a little longer for the others to say more."""
    started = time.time()
    failed_at: float | None = None
    while any(worker.poll() is None for worker in workers):
        now = time.time()
        failed = any(worker.poll() not in (None, 0) for worker in workers)
        failed_at = now if failed and failed_at is None else failed_at
        if failed_at is not None and now - failed_at > _GRACE_SECONDS:
            break
        if now - max(started, _last_sign(folder)) > patience:
            return Failure(f"gave no sign of life for {patience:.0f} s and was ended")
        time.sleep(_POLL_SECONDS)
    codes = [(worker.poll(), rank) for rank, worker in enumerate(workers)]
    causes = [(code, rank) for code, rank in codes if code]
    return _explain(folder, *min(causes, key=lambda each: cause_first(folder, *each))) if causes else None


def _explain(folder: Path, code: int, rank: int) -> Failure:
    told = told_by(folder, rank)
    if told is not None:
        return Failure(told["message"], told["hint"], code if code in _ANNOUNCED else _TRAINING)
    if was_aborted(folder, code, rank):
        return Failure(
            f"a process {ABORTED}", "NCCL_P2P_DISABLE=1, where GPUs cannot reach each other; else camox doctor"
        )
    if code < 0:
        name = signal.Signals(-code).name
        of_memory = ", which is how the system ends a process where memory runs out" if name == "SIGKILL" else ""
        return Failure(f"a process was killed by {name}{of_memory}", "smaller --batch-size and --stage2-batch-size")
    lines = (folder / f"rank{rank}.log").read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Failure(f"a process ended with exit code {code}: {last}")


def _last_sign(folder: Path) -> float:
    signs = []
    for path in folder.glob("alive*"):
        with suppress(OSError):
            signs.append(path.stat().st_mtime)
    return max(signs, default=0.0)
