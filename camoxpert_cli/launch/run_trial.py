"""Training trials in separate processes: a crash, an out-of-memory error or a hang ends only that trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

from camoxpert_cli.launch.processes import (
    GRACE_SECONDS,
    BadEnd,
    ChildProcesses,
    Failure,
    last_lines,
    python,
    signal_name,
)
from camoxpert_cli.launch.trial import Measurement, Trial
from camoxpert_cli.parallel.strategy import processes_of
from camoxpert_cli.parallel.worker import worker_environment, write_job
from camoxpert_cli.temporary import temporary_folder

# Seconds without a sign of life: startup takes half a minute on a slow disk, a step on a slow CPU almost as long.
PATIENCE = 180.0
_WORKER = "camoxpert_cli.launch.trial"
# Exit codes of errors that a user can fix; others mean that training failed.
_ANNOUNCED = (2, 3, 4, 5)

TrialResult: TypeAlias = Measurement | Failure


def run_trial(
    trial: Trial,
    *,
    threads: int,
    patience: float = PATIENCE,
    grace: float = GRACE_SECONDS,
    worker: str = _WORKER,
) -> TrialResult:
    """Run the trial in as many processes as its strategy needs; `worker` is the module that they run.

    It fails if a process fails, after which the others have `grace` seconds, or if there is no sign of life for
    `patience` seconds.
    """
    processes = processes_of(trial.config.run.strategy, trial.gpus)
    with temporary_folder() as folder:
        write_job(folder, trial=trial.to_mapping())
        children = ChildProcesses(folder, grace=grace)
        try:
            for rank in range(processes):
                environment = worker_environment(folder, rank, processes, threads)
                children.start(python(worker), environment)
            if not children.wait(patience):
                return Failure(f"stopped responding for {patience:g} s and was killed")
            if (end := children.cause()) is not None:
                return _explain(end, children.log(end.rank))
        finally:
            children.kill()
        return Measurement(**json.loads((folder / "measurement.json").read_text(encoding="utf-8")))


def _explain(end: BadEnd, log: Path) -> Failure:
    if end.told is not None:
        return Failure(end.told["message"], end.told["hint"], end.code if end.code in _ANNOUNCED else None)
    if end.was_aborted:
        return Failure(
            f"a process {end}", "NCCL_P2P_DISABLE=1 if GPUs cannot access each other directly; otherwise camox doctor"
        )
    if end.code < 0:
        is_memory = signal_name(end.code) == "SIGKILL"
        cause = ", probably because the machine ran out of memory" if is_memory else ""
        return Failure(f"a process {end}{cause}", "smaller --batch-size and --stage2-batch-size")
    return Failure(f"a process {end}: {last_lines(log).strip()}")
