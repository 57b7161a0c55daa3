"""Run training in this process, or in several that it starts and waits for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from camoxpert_cli import console
from camoxpert_cli.config.parse import parse_duration
from camoxpert_cli.config.resolve import Resolved, from_mapping, to_mapping
from camoxpert_cli.data.cores import cores_each
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.errors import DeviceError, TrainingError, UsageError
from camoxpert_cli.launch import autobatch, unfinished, workers
from camoxpert_cli.launch.continuing import WAIT_FOR_FOLDER, find_run, why_continue
from camoxpert_cli.launch.decide import agree, decide, name_for
from camoxpert_cli.parallel import worker
from camoxpert_cli.parallel.determinism import deterministic
from camoxpert_cli.parallel.world import World, joined
from camoxpert_cli.run_folder import RunFolder, make_default

if TYPE_CHECKING:
    from camoxpert_cli.checkpoints.format import Checkpoint
    from camoxpert_cli.config.schema import Config


def start(
    resolved: Resolved,
    checkpoint: Checkpoint | None = None,
    *,
    began: float | None = None,
    as_read: Sequence[object] | None = None,
) -> Outcome:
    """Train with these settings, from `checkpoint` or the file in `run.resume_from`.

    The run folder is locked from the start, so that what is read there stays valid. `as_read` are the `stamps` of the
    checkpoint's folder before `checkpoint` was read. Time limits count from `began`, in seconds of `time.monotonic`, or
    from the start of this process. If torchrun started several processes, only the first returns results. Raises
    CamoxError, also for the error of a process that it started; Interrupted with `run.unfinished_exit_code` if given.
    """
    reason = why_continue(resolved) if checkpoint is None else None
    with (
        unfinished.interrupted_with(unfinished.code_of(resolved.config)),
        deterministic(resolved.config.train.deterministic),
        _keeping_folder(resolved, checkpoint, waits=reason is not None) as (resolved, folder),
        joined(parse_duration(resolved.config.run.collective_timeout)) as world,
    ):
        unfinished.warn_of_torchrun(resolved.config, folder.path)
        if checkpoint is not None and as_read is not None:
            _refuse_stale(checkpoint, folder, as_read)
        elif checkpoint is None:
            found = find_run(resolved, folder, world, reason)
            if found.outcome is not None:
                return found.outcome
            resolved, checkpoint = found.resolved, found.checkpoint
        plan = decide(resolved, checkpoint, began)
        if worker.is_worker():
            plan = agree(plan, resolved, world)
        elif plan.placement.processes > 1:
            folder.share_lock()
            return _train_in_workers(plan)
        return _train(plan, world, checkpoint)


def work() -> None:
    """Run a worker process that `start` started: train according to the plan in its job."""
    job = worker.read_job()
    console.be_quiet(job["quiet"])
    sys.argv[:] = job["argv"]  # what the user typed, for env.json and the report
    plan = Plan.from_mapping(job["plan"])
    with (
        deterministic(plan.config.train.deterministic),
        joined(parse_duration(plan.config.run.collective_timeout)) as world,
        RunFolder(plan.folder, writes=world.is_main).locked(shared=True),  # the launcher may be killed
    ):
        outcome = _train(plan, world, None)
    if world.is_main:
        worker.tell_outcome(outcome.to_mapping())


@contextmanager
def _keeping_folder(
    resolved: Resolved, checkpoint: Checkpoint | None, *, waits: bool
) -> Iterator[tuple[Resolved, RunFolder]]:
    """Lock the run folder, creating one if none is given; yields the settings that name it, and the folder.

    Of the processes that torchrun started only the first does so; the others learn of it once they have joined. A run
    that was killed may still be saving: under torchrun, and whenever a command `waits`, it is given time to end.
    """
    run = resolved.config.run
    if not worker.is_first():
        yield resolved, RunFolder(Path(run.checkpoint_dir or "."), writes=False)
        return
    made = None if run.checkpoint_dir else make_default(name_for(resolved, checkpoint))
    folder = RunFolder(made or Path(str(run.checkpoint_dir)))
    named = replace(resolved.config, run=replace(run, checkpoint_dir=str(folder.path)))
    try:
        with folder.locked(wait=WAIT_FOR_FOLDER if waits or worker.is_worker() else 0.0):
            yield replace(resolved, config=named), folder
    finally:
        for each in () if made is None else (made, made.parent):
            with suppress(OSError):  # it contains runs
                each.rmdir()


def _refuse_stale(checkpoint: Checkpoint, folder: RunFolder, as_read: Sequence[object]) -> None:
    """Raise UsageError if another process has meanwhile resumed from the checkpoint that this one would use."""
    own = RunFolder(checkpoint.path.parent)
    if own.path.resolve() == folder.path.resolve() and own.stamps != as_read:
        raise UsageError(
            f"another process saved a checkpoint to {folder.path} after this command had read {checkpoint.path.name}",
            own.resume_command,
        )


def _train(plan: Plan, world: World, checkpoint: Checkpoint | None) -> Outcome:
    """Train; if GPU memory runs out, resume once from the last checkpoint with smaller batches.

    A rank that ran out of memory is out of step with the others, and no collective can notify them. So with several
    processes it exits, and the launcher restarts all of them.
    """
    # Imports modules that a process that only waits for others does not need.
    from camoxpert_cli.engine.out_of_memory import OutOfMemory
    from camoxpert_cli.engine.train import train

    try:
        return train(plan, world, checkpoint)
    except OutOfMemory as error:
        smaller = error.smaller
        if smaller is None:
            raise
        if worker.is_worker():
            worker.tell_remedy(to_mapping(smaller))
            raise
        failed = error
    failed.let_go()
    console.warn(f"{failed.message}. Restarting {_again(plan, smaller)}; if memory runs out again, the run stops")
    return train(plan.going_on(smaller), world)


def _train_in_workers(plan: Plan) -> Outcome:
    """Train in one process per device and wait until all have succeeded.

    If one crashes or is killed, all are restarted from the last checkpoint, up to `run.max_restarts` times, and once if
    one asked for smaller batches. Raises the error of the worker that failed first, with its exit code, or 128 + a
    signal's number; SystemExit if the reader of the output is gone.
    """
    count = plan.placement.processes
    threads = cores_each(count)
    restarts, remedied = 0, False
    while True:
        attempt = workers.run_workers(["work"], count, threads=threads, run_folder=plan.folder, plan=plan.to_mapping())
        if attempt.error is None:
            if attempt.outcome is None:
                raise TrainingError(
                    f"all {count} processes succeeded, but their results are lost: the temporary folder was removed",
                    f"see the files in {plan.folder}",
                )
            return Outcome.from_mapping(attempt.outcome)
        error = attempt.error
        remedy = None if remedied or error.exit_code != TrainingError.exit_code else attempt.remedy
        # A GPU that fails in the middle of a run may work next time; one that was never available will not.
        has_begun = attempt.began and RunFolder(plan.folder).holds_checkpoint
        final = error.exit_code in workers.FINAL and not (error.exit_code == DeviceError.exit_code and has_begun)
        if remedy is None and (final or restarts == plan.config.run.max_restarts):
            raise error
        console.fail(error.message, error.hint, error.details)
        if remedy is not None:
            remedied = True
            smaller = from_mapping(remedy, "the remedy")
            console.warn(f"restarting all {count} processes {_again(plan, smaller)}")
            plan = plan.going_on(smaller)
        else:
            restarts += 1
            console.warn(f"restarting all {count} processes (restart {restarts} of {plan.config.run.max_restarts})")
            plan = plan.going_on(plan.config)


def _again(plan: Plan, smaller: Config) -> str:
    start_point = "from the beginning" if plan.going_on(smaller).checkpoint is None else "from the last checkpoint"
    kept = autobatch.format_global_batches(plan.config, smaller)
    return f"{start_point}, using {autobatch.format_batches(smaller)}, {kept}"
