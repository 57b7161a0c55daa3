"""`camox train --continue`: the same command, run again, resumes the run that it started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint
from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.checkpoints.saved_settings import saved_settings
from camoxpert_cli.config.batches import batches_within, own_batches
from camoxpert_cli.config.diff import changes, with_machine_of
from camoxpert_cli.config.resolve import Resolved, from_mapping, resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.build import check_images, open_data
from camoxpert_cli.engine.ending import is_trained
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.restoring import epochs_done
from camoxpert_cli.errors import CamoxError, UsageError
from camoxpert_cli.launch.decide import given
from camoxpert_cli.parallel.device import place, with_count
from camoxpert_cli.parallel.worker import is_first, is_worker
from camoxpert_cli.parallel.world import World, expected_size
from camoxpert_cli.rerun import scheduler_variable
from camoxpert_cli.run_folder import RunFolder
from camoxpert_cli.targets import is_file_of

# Seconds in which a killed run that is still saving has to leave its folder.
WAIT_FOR_FOLDER = 60.0


@dataclass(frozen=True)
class Found:
    """What a command that continues a run found in its folder.

    The settings to train with, from `checkpoint` if there is one; `outcome` if the run is already complete.
    """

    resolved: Resolved
    checkpoint: Checkpoint | None = None
    outcome: Outcome | None = None


def why_continue(resolved: Resolved) -> str | None:
    """Return why the command continues the run in its folder, if it does: "--continue", or what a scheduler set.

    Raises UsageError for --continue without a folder.
    """
    run = resolved.config.run
    if run.continue_:
        if run.checkpoint_dir is None:
            raise UsageError(
                "--continue needs a run folder with a fixed name", "name one, for example --checkpoint-dir runs/first"
            )
        return resolved.origins["run.continue"]
    variable = scheduler_variable()
    if run.continue_ is False or variable is None:
        return None
    if run.checkpoint_dir is None:
        if is_first():
            console.warn(
                f"{variable} is set, but without --checkpoint-dir this command starts a new run each time that it is "
                "run"
            )
        return None
    if run.resume_from is not None and is_file_of(Path(run.resume_from).parent, Path(run.checkpoint_dir)):
        return None  # the command says from where to continue
    return f"{variable} is set"


def find_run(resolved: Resolved, folder: RunFolder, world: World, reason: str | None) -> Found:
    """Find out whether the run that this command would start has begun in `folder`. Every rank must call this.

    Rank 0 decides for all, by its own files. `reason` is what `why_continue` returned, before `folder` was locked.
    Raises CamoxError: UsageError if the folder contains another run.
    """
    reason = world.broadcast(reason)
    if reason is None:
        return Found(resolved)
    resolved = replace(resolved, config=replace(resolved.config, run=replace(resolved.config.run, continue_=True)))
    found: Found | CamoxError | None = None
    if world.is_main:
        try:
            found = _find(resolved, folder, reason)
        except CamoxError as error:
            found = error
    found = _as_rank_0(found, resolved, world)
    if isinstance(found, CamoxError):
        raise found
    return found


def _find(resolved: Resolved, folder: RunFolder, reason: str) -> Found:
    if not folder.holds_checkpoint:
        return Found(resolved)
    checkpoint = find_checkpoint(folder.path)
    before = from_mapping(*saved_settings(checkpoint))
    _refuse_another_run(resolved, checkpoint, before, folder)
    best_epoch = None if checkpoint.training is None else checkpoint.training.progress.epoch_of_best
    if folder.is_complete(trained=is_trained(before, epochs_done(before, checkpoint), best_epoch)):
        _refuse_other_images(resolved, checkpoint, folder)
        console.say(f"The run in {folder.path} is complete, with results in {folder.results} ({reason})")
        return Found(resolved, checkpoint, _outcome(before, checkpoint, folder))
    console.say(f"Continuing the run in {folder.path} ({reason})")
    return Found(settings_to_continue(resolved, checkpoint), checkpoint)


def _as_rank_0(found: Found | CamoxError | None, resolved: Resolved, world: World) -> Found | CamoxError:
    """What rank 0 found, with the checkpoint as this rank reads it; an error if the ranks read different ones."""
    told: CamoxError | Path | Outcome | None = None
    if isinstance(found, CamoxError):
        told = found
    elif found is not None and found.checkpoint is not None:
        told = found.checkpoint.path if found.outcome is None else replace(found.outcome, results=None)
    told = world.broadcast(told)
    if isinstance(told, CamoxError):
        return told
    if not isinstance(told, Path):
        return found if isinstance(found, Found) else Found(resolved, outcome=told)
    here: Found | CamoxError
    try:
        here = found if isinstance(found, Found) else _read(told, resolved)
    except CamoxError as error:
        here = error
    positions = world.all_gather(here.message if isinstance(here, CamoxError) else _position(here.checkpoint))
    for rank, each in enumerate(positions):
        if each != positions[0]:
            return UsageError(
                f"rank {rank} does not read the same {told} as rank 0: {each}, expected {positions[0]}",
                "put the run folder on a file system that all machines share",
            )
    return here


def _read(path: Path, resolved: Resolved) -> Found:
    checkpoint = Checkpoint(path, read_checkpoint(path))
    return Found(settings_to_continue(resolved, checkpoint), checkpoint)


def _position(checkpoint: Checkpoint | None) -> str:
    training = None if checkpoint is None else checkpoint.training
    if training is None:
        return "a checkpoint without a training state"
    return f"epoch {training.progress.epoch + 1} after {console.counted(training.progress.samples, 'image')}"


def _refuse_another_run(resolved: Resolved, checkpoint: Checkpoint, current: Config, folder: RunFolder) -> None:
    """Raise UsageError, naming the differences, unless the command asks for the run as it was started, or as it is now.

    The `current` settings differ from those at the start if the run was extended by hand.
    """
    now = given(resolved.config)
    started = current if checkpoint.start is None else from_mapping(checkpoint.start.as_given, str(checkpoint.path))
    differing = _differences(started, now)
    if differing and _differences(replace(current, run=started.run), now):
        raise UsageError(
            f"{folder.path} contains another run: {'; '.join(differing)}",
            f"{folder.resume_command}, which uses that run's settings; or choose another folder with --checkpoint-dir",
        )


def _differences(before: Config, now: Config) -> list[str]:
    """What makes two commands different runs, one description each."""
    if "all" in (before.run.gpus, now.run.gpus):  # as many as there are: the number itself does not matter
        before, now = (replace(each, run=replace(each.run, gpus=None)) for each in (before, now))
    found = [
        f"{each.key} is {each.old} there and {each.new} in this command"
        for each in changes(before, now)
        if each.effect not in ("none", "rounding")
    ]
    if before.train.fit != now.train.fit:
        found.append(
            f"train.fit is {before.train.fit or 'not set'} there and {now.train.fit or 'not set'} in this command"
        )
    weights = [each.model.backbone_weights for each in (before, now)]
    if len({each and Path(each).name for each in weights}) > 1:
        old, new = (each or "not set" for each in weights)
        found.append(f"model.backbone_weights is {old} there and {new} in this command")
    starts = [each.run.resume_from or each.model.init_from for each in (before, now)]
    if starts[0] != starts[1]:
        found.append(f"it began with {starts[0] or 'no checkpoint'}, this command with {starts[1] or 'none'}")
    return found


def _refuse_other_images(resolved: Resolved, checkpoint: Checkpoint, folder: RunFolder) -> None:
    """Raise CheckpointError if the command names other images than those that a complete run was trained on.

    They are not searched for if their paths are those of the run.
    """
    now = given(resolved.config).data
    before = None if checkpoint.start is None else from_mapping(checkpoint.start.as_given, str(checkpoint.path)).data
    if before is None or replace(before, cache=now.cache, num_workers=now.num_workers) != now:
        check_images(checkpoint, open_data(now, resolved.config.train.seed, folder), folder)


def settings_to_continue(resolved: Resolved, checkpoint: Checkpoint) -> Resolved:
    """Combine the settings of the run in `checkpoint` with what the command says about where and how to train.

    On another number of GPUs, gradient accumulation keeps the global batch sizes that the run was started with, or
    comes as near as possible, with a warning.
    """
    saved = resolve(None, {}, saved=saved_settings(checkpoint))
    before, now = saved.config, given(resolved.config)
    started = decided = before
    if checkpoint.start is not None:
        origin = str(checkpoint.path)
        started, decided = (from_mapping(each, origin) for each in vars(checkpoint.start).values())
    config = with_machine_of(before, now)
    # torchrun starts as many processes as there are machines left.
    run = replace(config.run, gpus=None) if is_worker() else config.run
    placement = place(run, expected_size(), sync_batchnorm=before.train.sync_batchnorm)
    config = replace(config, run=replace(with_count(run, placement), checkpoint_dir=now.run.checkpoint_dir))
    gives_other_batches = own_batches(now) != own_batches(started)
    if config.gpu_count != before.gpu_count or gives_other_batches:
        most = own_batches(now if gives_other_batches else decided)
        config = batches_within(config, most, decided.global_batches)
        if config.global_batches != decided.global_batches and is_first():
            old, new = decided.global_batches, config.global_batches
            unit = ("process", "processes") if placement.devices[0].type == "cpu" else ("GPU", "GPUs")
            console.warn(
                f"the global batch sizes {old[0]} and {old[1]} (stages 1 and 2) cannot be kept on "
                f"{console.counted(config.gpu_count, *unit)}: continuing with {new[0]} and {new[1]}"
            )
    return replace(saved, config=replace(config, run=replace(config.run, continue_=True)))


def _outcome(config: Config, checkpoint: Checkpoint, folder: RunFolder) -> Outcome:
    data, training = config.data, checkpoint.training
    generated = not (data.dataset_path or data.images) and data.generated_images > 0
    seconds = 0.0 if training is None else training.progress.seconds
    results = folder.results_of_run
    epochs = (results or {}).get("epochs", config.train.epochs)  # fewer after an early stop
    return Outcome(folder, config, epochs, 0, seconds, generated, results)
