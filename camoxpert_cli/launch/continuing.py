"""`camox train --continue`: the same command, run again, resumes the run that it started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint
from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.checkpoints.saved_settings import saved_settings
from camoxpert_cli.config.batches import batches_within, own_batches
from camoxpert_cli.config.diff import changes, with_machine_of
from camoxpert_cli.config.resolve import Resolved, from_mapping, resolve, with_absolute_paths
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.restoring import epochs_done
from camoxpert_cli.errors import CamoxError, UsageError
from camoxpert_cli.launch.decide import given
from camoxpert_cli.parallel.device import place, with_count
from camoxpert_cli.parallel.worker import is_first, is_worker
from camoxpert_cli.parallel.world import World, expected_size
from camoxpert_cli.rerun import scheduler_variable
from camoxpert_cli.run_folder import RunFolder

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
    if run.continue_ is False:
        return None
    variable = scheduler_variable()
    reason = resolved.origins["run.continue"] if run.continue_ else variable and f"{variable} is set"
    if reason is not None and run.checkpoint_dir is None:
        if run.continue_:
            raise UsageError(
                "--continue needs a run folder with a fixed name", "name one, for example --checkpoint-dir runs/first"
            )
        console.warn(
            f"{variable} is set, but without --checkpoint-dir this command starts a new run each time that it is run"
        )
        return None
    return reason


def find_run(resolved: Resolved, folder: RunFolder, world: World, reason: str | None) -> Found:
    """Find out whether the run that this command would start has begun in `folder`. Every rank must call this.

    Rank 0 decides for all, by its own files. `reason` is what `why_continue` returned, before `folder` was locked.
    Raises CamoxError: UsageError if the folder contains another run.
    """
    # An agent of torchrun that has just been started does not know of the restarts of the others.
    reason = next((each for each in world.all_gather(reason) if each is not None), None)
    if reason is None:
        return Found(resolved)
    found: Found | CamoxError | None = None
    if world.is_main:
        try:
            found = _find(resolved, folder, reason)
        except CamoxError as error:
            found = error
    if world.size > 1:
        found = _as_rank_0(found, resolved, world)
    if isinstance(found, CamoxError):
        raise found
    assert found is not None
    return found


def _find(resolved: Resolved, folder: RunFolder, reason: str) -> Found:
    if not folder.holds_checkpoint:
        return Found(resolved)
    checkpoint = find_checkpoint(folder.path)
    _refuse_another_run(resolved, checkpoint, folder)
    to_train = settings_to_continue(resolved, checkpoint)
    results = _results(folder)
    epochs = epochs_done(to_train.config, checkpoint)
    if results is not None and epochs >= to_train.config.train.epochs:
        console.say(f"The run in {folder.path} is complete, with results in {folder.results} ({reason})")
        return Found(to_train, checkpoint, _outcome(to_train.config, checkpoint, folder, results))
    console.say(f"Continuing the run in {folder.path} ({reason})")
    return Found(to_train, checkpoint)


def _as_rank_0(found: Found | CamoxError | None, resolved: Resolved, world: World) -> Found | CamoxError:
    """What rank 0 found, with the checkpoint as this rank reads it. Returns an error if ranks read different ones."""
    told: CamoxError | Path | Outcome | None = None
    if isinstance(found, CamoxError):
        told = found
    elif found is not None and found.checkpoint is not None:
        told = found.checkpoint.path if found.outcome is None else replace(found.outcome, results=None)
    told = world.broadcast(told)
    if isinstance(told, CamoxError):
        return told
    if told is None:
        return Found(resolved)
    if isinstance(told, Outcome):
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


def _refuse_another_run(resolved: Resolved, checkpoint: Checkpoint, folder: RunFolder) -> None:
    """Raise UsageError, naming the differences, unless the command is the one that started the run."""
    settings, origin = saved_settings(checkpoint)
    before = from_mapping(settings if checkpoint.start is None else checkpoint.start.as_given, origin)
    now = given(resolved.config)
    differing = [
        f"{each.key} is {each.old} there and {each.new} in this command"
        for each in changes(before, now)
        if each.effect not in ("none", "rounding")
    ]
    if before.train.fit != now.train.fit:
        differing.append(
            f"train.fit is {before.train.fit or 'not set'} there and {now.train.fit or 'not set'} in this command"
        )
    if before.run.resume_from != now.run.resume_from:
        differing.append(
            f"it began with {before.run.resume_from or 'no checkpoint'}, this command "
            f"with {now.run.resume_from or 'none'}"
        )
    if differing:
        raise UsageError(
            f"{folder.path} contains another run: {'; '.join(differing)}",
            f"{folder.resume_command}, which uses that run's settings; or choose another folder with --checkpoint-dir",
        )


def settings_to_continue(resolved: Resolved, checkpoint: Checkpoint) -> Resolved:
    """Combine the settings of the run in `checkpoint` with what the command says about where to train.

    On another number of GPUs, gradient accumulation keeps the global batch sizes that the run was started with, or
    comes as near as possible, with a warning.
    """
    saved = saved_settings(checkpoint)
    before, now = from_mapping(*saved), resolved.config
    config = with_machine_of(before, replace(now, data=with_absolute_paths(now.data)))
    # torchrun starts as many processes as there are machines left.
    run = replace(config.run, gpus=None) if is_worker() else config.run
    placement = place(run, expected_size(), sync_batchnorm=before.train.sync_batchnorm)
    config = replace(config, run=replace(with_count(run, placement), checkpoint_dir=now.run.checkpoint_dir))
    if config.gpu_count != before.gpu_count:
        decided = before if checkpoint.start is None else from_mapping(checkpoint.start.as_decided, saved[1])
        config = batches_within(config, own_batches(decided), decided.global_batches)
        if config.global_batches != decided.global_batches and is_first():
            old, new = decided.global_batches, config.global_batches
            unit = ("process", "processes") if placement.devices[0].type == "cpu" else ("GPU", "GPUs")
            console.warn(
                f"the global batch sizes {old[0]} and {old[1]} (stages 1 and 2) cannot be kept on "
                f"{console.counted(config.gpu_count, *unit)}: continuing with {new[0]} and {new[1]}"
            )
    return replace(resolve(None, {}, saved=saved), config=config)


def _results(folder: RunFolder) -> Mapping[str, Any] | None:
    """The content of results.json; None if there is none, or none that is intact."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(folder.results.read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"validation", "tests", "epoch"} <= content.keys():
            return content
    return None


def _outcome(config: Config, checkpoint: Checkpoint, folder: RunFolder, results: Mapping[str, Any]) -> Outcome:
    data, training = config.data, checkpoint.training
    generated = not (data.dataset_path or data.images) and data.generated_images > 0
    seconds = 0.0 if training is None else training.progress.seconds
    return Outcome(folder, config, config.train.epochs, 0, seconds, generated, results)
