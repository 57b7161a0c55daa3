"""`camox resume`: find the newest intact checkpoint, its settings, and what changes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint, Progress
from camoxpert_cli.checkpoints.newest import find_checkpoint, folder_of
from camoxpert_cli.checkpoints.program_layouts import CAMOX, layout_of
from camoxpert_cli.checkpoints.saved_settings import saved_settings
from camoxpert_cli.config.batches import BATCH_SETTINGS
from camoxpert_cli.config.diff import changes, keep_global_batches
from camoxpert_cli.config.resolve import Resolved, from_mapping, resolve, with_absolute_paths
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.cache import holds_cache
from camoxpert_cli.engine.build import check_images, describe_batches, open_data
from camoxpert_cli.engine.ending import describe_trained, is_trained
from camoxpert_cli.engine.epochs import rate_at
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.restoring import NOT_HELD, epochs_done, format_position, refuse_fewer_epochs
from camoxpert_cli.engine.stages import keep_unfrozen
from camoxpert_cli.errors import UsageError
from camoxpert_cli.launch.start import start
from camoxpert_cli.parallel.device import place, with_count
from camoxpert_cli.parallel.world import expected_size
from camoxpert_cli.run_folder import RunFolder, default_path

_FOLDERS = {"data.images", "data.masks"}


def resume(
    source: Path,
    flags: Mapping[str, Any],
    assignments: Sequence[str],
) -> Outcome:
    """Resume the run in the folder `source`, or from the checkpoint `source`.

    `flags` and `assignments` are those of `resolve`; for the rest see `start`. Raises CamoxError.
    """
    as_read = RunFolder(folder_of(source)).stamps
    checkpoint = find_checkpoint(source)
    return start(settings_to_go_on(checkpoint, flags, assignments), checkpoint, as_read=as_read)


def rehearse(source: Path, flags: Mapping[str, Any], assignments: Sequence[str]) -> list[str]:
    """Return lines that describe what `resume` would do with these arguments, without writing. Raises CamoxError."""
    checkpoint = find_checkpoint(source)
    resolved = settings_to_go_on(checkpoint, flags, assignments)
    if resolved.auto:
        raise UsageError(
            "--batch-size auto has to run training steps, and --dry-run does not run any", "omit one of the two"
        )
    return [f"{title:<17}{text}" for title, text in _describe(resolved.config, checkpoint)]


def settings_to_go_on(checkpoint: Checkpoint, flags: Mapping[str, Any], assignments: Sequence[str]) -> Resolved:
    """Combine the checkpoint's settings with those given by the user, and choose the folder to resume in.

    The folder is None if a new one is to be created. If the number of GPUs or a per-GPU batch size changes, gradient
    accumulation keeps the global batch size. A checkpoint may come from anyone: nothing is written to paths that it
    names unless they are known on this machine, see `_keeps_cache`. Raises UsageError.
    """
    saved = saved_settings(checkpoint)
    before = from_mapping(*saved)
    resolved = resolve(None, flags, assignments, saved=saved)
    config = resolved.config
    if "train.epochs" in flags and config.train.epochs < before.train.epochs:
        raise UsageError(
            f"--epochs is {config.train.epochs}, but the run has {before.train.epochs}; --epochs can only extend a run",
            f"to shorten it anyway: --set train.epochs={config.train.epochs}",
        )
    asked = resolved.typed
    if config.train.epochs != before.train.epochs and "train.last_epoch_images" not in asked:
        config = replace(config, train=replace(config.train, last_epoch_images=None))
    if "run.devices" in asked and "run.gpus" not in asked:
        config = replace(config, run=replace(config.run, gpus=None))
    config = replace(config, run=with_count(config.run, place(config.run, expected_size())))
    assigned = {text.partition("=")[0].strip() for text in assignments}
    # A new location of the images replaces the old one.
    if "data.dataset_path" in asked and not asked & _FOLDERS:
        config = replace(config, data=replace(config.data, images=(), masks=()))
    elif asked & _FOLDERS and "data.dataset_path" not in asked:
        config = replace(config, data=replace(config.data, dataset_path=()))
    if (BATCH_SETTINGS & asked or config.run.gpus != before.run.gpus) and not BATCH_SETTINGS & assigned:
        config = keep_global_batches(before, config, [*asked])
    folder = Path(str(config.run.checkpoint_dir)) if "run.checkpoint_dir" in asked else _folder_to_write(checkpoint)
    config = replace(
        config,
        run=replace(config.run, checkpoint_dir=None if folder is None else str(folder), resume_from=None),
        # Weights alone may become the start of a new run, on other images.
        model=config.model if checkpoint.training else replace(config.model, init_from=None),
        data=with_absolute_paths(config.data),  # as the run stores them, so that the same folder is not a change
    )
    if "data.cache" not in asked and not _keeps_cache(config.data.cache, checkpoint, folder):
        console.warn(
            f"{checkpoint.path} names {config.data.cache} as the image cache, but there is no cache of this run there "
            f"on this machine; using --cache auto (to use that folder, pass --cache {shlex.quote(config.data.cache)})"
        )
        config = replace(config, data=replace(config.data, cache="auto"))
    return replace(resolved, config=config)


def _describe(config: Config, checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Titles and texts that describe what resuming would do. Raises CamoxError if it would fail."""
    placement = place(config.run, expected_size(), sync_batchnorm=config.train.sync_batchnorm)
    on_cpu = placement.devices[0].type == "cpu"
    training = checkpoint.training
    folder = RunFolder(Path(config.run.checkpoint_dir or default_path(checkpoint.path.absolute().parent.name)))
    folder.refuse_other_run(checkpoint.path)
    epoch = epochs_done(config, checkpoint)
    samples = training.progress.samples if training else 0
    lines = [
        ("Checkpoint", f"{checkpoint.path}: {format_position(Progress(epoch=epoch, samples=samples))}"),
        ("Run folder", str(folder.path)),
    ]
    if not training:
        lines.append(("", f"contains only weights; the {NOT_HELD} start from scratch"))
    lines.append(("Next", _next_step(config, checkpoint, folder, epoch, samples)))
    found = changes(from_mapping(*saved_settings(checkpoint)), config)
    lines += [("" if at else "Changes", str(change)) for at, change in enumerate(found)] or [("Changes", "none")]
    return lines + (describe_batches(config, "process", "processes") if on_cpu else describe_batches(config))


def _next_step(config: Config, checkpoint: Checkpoint, folder: RunFolder, epoch: int, samples: int) -> str:
    training, begins = checkpoint.training, ""
    images = config.data.generated_images
    if config.data.dataset_path or config.data.images or not images:
        data = open_data(config.data, config.train.seed, folder)
        images = data.images_per_epoch
        if not check_images(checkpoint, data, folder):
            begins = "a new run from these weights, because the images differ: "
            epoch = config.train.stage1_epochs if config.train.skip_stage1 else 0
    refuse_fewer_epochs(config, checkpoint.path, epoch)
    best_epoch = training.progress.epoch_of_best if training and not begins else None
    if is_trained(config, epoch, best_epoch):
        how = describe_trained(config, epoch, best_epoch)
        return f"training is complete ({how}): the best weights would be scored again"
    phases = keep_unfrozen(build_phases(config), epoch, training.backbone_stages if training else 0)
    phase = next(phase for phase in phases if phase.end > epoch)
    step = math.ceil(samples / (phase.stage.batch_size * config.train.accumulation_steps * config.gpu_count))
    rate = rate_at(config, phase.stage, images, epoch, step)
    return f"{begins}epoch {epoch + 1} of {config.train.epochs}, stage {phase.stage.number}, learning rate {rate:.3g}"


def _keeps_cache(choice: str, checkpoint: Checkpoint, folder: Path | None) -> bool:
    """Whether a resumed run may write its cache where its checkpoint says.

    It may in its run folder, and if the run settings next to the checkpoint name the same folder and a cache exists
    there: then it is a run of this machine, and the author of a foreign checkpoint cannot fake both.
    """
    if choice in ("auto", "off") or (folder is not None and Path(choice).resolve().is_relative_to(folder.resolve())):
        return True
    beside = RunFolder(checkpoint.path.parent).settings
    return bool(beside) and beside["data"].get("cache") == choice and holds_cache(Path(choice))


def _folder_to_write(checkpoint: Checkpoint) -> Path | None:
    """The run's own folder, or None, for a new one, if that is not writable or belongs to another program."""
    own = checkpoint.path.parent
    if layout_of(checkpoint.content) is CAMOX and (own / "config.yaml").exists() and RunFolder(own).is_writable():
        return own
    return None
