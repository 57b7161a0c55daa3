"""Restore a run from a checkpoint."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from camoxpert_cli import atomic, console
from camoxpert_cli.checkpoints.format import Checkpoint, Progress, TrainingContent, read_checkpoint
from camoxpert_cli.checkpoints.load import load_weights
from camoxpert_cli.checkpoints.program_layouts import ema_in, epochs_complete, said_size
from camoxpert_cli.config.diff import changes
from camoxpert_cli.config.resolve import from_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.build import check_images
from camoxpert_cli.engine.epochs import epoch_images, steps_in_epoch
from camoxpert_cli.engine.optimizer import load_state
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.saving import EAGER
from camoxpert_cli.engine.stages import keep_unfrozen
from camoxpert_cli.engine.state import set_trained
from camoxpert_cli.errors import CheckpointError, UsageError
from camoxpert_cli.run_folder import RunFolder

# What only `last.pth` contains.
NOT_HELD = "optimizer, gradient scaler, position within the epoch and history"
# Entries of `computed_with` that checkpoints of camox 0.1 call by another name.
_NAMES_OF_0_1 = {"number format": "precision"}


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Resume where `checkpoint` stopped; the network already has its weights.

    A checkpoint of the original CamoXpert contains weights and an epoch, `best_model.pth` of camox also its scores: the
    rest starts from scratch, with a warning. Raises CheckpointError if the training state does not fit the settings,
    UsageError if these leave nothing to do.
    """
    path, content = checkpoint
    if run.state.ema is not None and ema_in(content) is not None:
        load_weights(run.state.ema.network, content, path, ema=True, tells=False)
    training = checkpoint.training
    if training is not None:
        _restore_training(run, training, path)
    elif check_images(checkpoint, run.data, run.folder):
        _restore_epoch_only(run, checkpoint)
    else:
        console.say(f"The images differ from those of {path}: starting a new run from its weights, at the first epoch")
    refuse_fewer_epochs(run.config, path, run.state.progress.epoch)
    _forget_best(run, checkpoint)
    run.saver.trusts_last = run.folder.last.exists() and path.samefile(run.folder.last)
    if run.world.is_main:
        _check_best(run, path)
    run.state.progress = run.world.broadcast(run.state.progress)
    if run.state.progress.epoch >= run.config.train.epochs and not run.state.progress.has_best:
        raise UsageError(
            f"{path} has {console.counted(run.state.progress.epoch, 'epoch')} complete, as many as these settings ask "
            "for, and its folder contains no best weights of this run, so there is nothing to train or score",
            "a larger --epochs",
        )


def _restore_training(run: Run, training: TrainingContent, path: Path) -> None:
    try:
        run.state.progress = training.progress
        _refuse_other_position(run, training.progress)
        run.phases = keep_unfrozen(run.phases, run.state.progress.epoch, training.backbone_stages)
        set_trained(run.state, run.strategy, run.config, training.backbone_stages)
        assert run.state.optimizer is not None
        current = [(group["lr_factor"], group["weight_decay"]) for group in run.state.optimizer.param_groups]
        load_state(run.state.optimizer, training.optimizer)
        for group, (factor, decay) in zip(run.state.optimizer.param_groups, current, strict=True):
            group["lr_factor"], group["weight_decay"] = factor, decay
        if run.state.scaler.is_enabled() and training.scaler:
            run.state.scaler.load_state_dict({**run.state.scaler.state_dict(), **training.scaler})
    except (KeyError, TypeError, ValueError) as error:
        older = RunFolder(path.parent).previous
        raise CheckpointError(
            f"the training state in {path} does not fit these settings: {error}",
            f"camox resume {shlex.quote(str(path))}, which uses the settings in the checkpoint"
            + (
                f"; if that fails too: camox resume {shlex.quote(str(older))}"
                if older.exists() and older != path
                else ""
            ),
        ) from error
    if run.state.ema is not None:
        run.state.ema.updates = training.ema_updates
    console.say(f"Resuming from {path}: {format_position(training.progress)}")
    before = {_NAMES_OF_0_1.get(name, name): value for name, value in (training.computed_with or {}).items()}
    if run.compiling.is_possible:  # reported once it is known
        run.compiling.before = before.pop("execution", EAGER)
    for name, value in run.saver.computed_with.items():
        if before.get(name, value) != value:
            console.say(f"The {name} was {before[name]} and is now {value}: results will differ by rounding")


def format_position(progress: Progress) -> str:
    """Describe how far a run got: "3 epochs complete, 40 images into epoch 4"."""
    within = (
        f", {console.counted(progress.samples, 'image')} into epoch {progress.epoch + 1}" if progress.samples else ""
    )
    return f"{console.counted(progress.epoch, 'epoch')} complete{within}"


def _refuse_other_position(run: Run, progress: Progress) -> None:
    """Raise ValueError if the run cannot be at that position."""
    images, network = epoch_images(run.config, progress.epoch, run.data.images_per_epoch), run.state.network
    if progress.samples > images:
        raise ValueError(
            f"training.progress.samples is {progress.samples}, expected at most {images}, the number of images in "
            f"epoch {progress.epoch + 1}"
        )
    table = [len(row) for row in progress.experts_chosen]
    if table not in ([], [network.num_experts] * len(network.moe_layers)):
        raise ValueError(f"training.progress.experts_chosen has rows of {table} numbers, expected one per expert")


def _restore_epoch_only(run: Run, checkpoint: Checkpoint) -> None:
    progress, own = run.state.progress, checkpoint.own
    progress.epoch = epochs_done(run.config, checkpoint)
    if own is not None and own.scores is not None:
        progress.best_epoch, progress.best_iou = int(own.scores["epoch"]), own.scores["iou"]
        progress.history = list(own.history or [{"seconds": 0.0, **own.scores}] * (progress.best_epoch > 0))
    if run.state.ema is not None and ema_in(checkpoint.content) is not None:
        # An EMA whose update count restarted would forget its weights within a few steps.
        run.state.ema.updates = sum(
            steps_in_epoch(run.config, phase.stage, epoch, run.data.images_per_epoch)
            for phase in run.phases
            for epoch in range(phase.first, min(phase.end, progress.epoch))
        )
    console.say(f"Resuming from {checkpoint.path}: {console.counted(progress.epoch, 'epoch')} complete")
    console.warn(f"the checkpoint contains only weights; the {NOT_HELD} start from scratch")


def refuse_fewer_epochs(config: Config, path: Path, epoch: int) -> None:
    """Raise UsageError if the checkpoint has more complete epochs, `epoch`, than the settings ask for."""
    if epoch > config.train.epochs:
        raise UsageError(
            f"{path} has {console.counted(epoch, 'epoch')} complete, but these settings ask for {config.train.epochs}",
            f"a larger --epochs, or to score it: camox eval {shlex.quote(str(path))} --dataset-path DATA",
        )


def _forget_best(run: Run, checkpoint: Checkpoint) -> None:
    """Discard the best score so far if it cannot be compared with scores to come."""
    progress, size, path = run.state.progress, said_size(checkpoint.content), checkpoint.path
    own = checkpoint.own
    own_size = run.config.data.scored_size
    if size is not None and size != own_size:
        reason = (
            f"the scores in {path} were measured at {size} x {size} pixels, "
            f"but this run scores at {own_size} x {own_size}"
        )
    elif own is not None and own.training is None and own.images is None:
        reason = f"{path} does not record which validation images its scores were measured on"
    else:
        return
    if progress.has_best:
        console.warn(f"{reason}; the best weights are chosen only from the epochs that follow")
        progress.best_iou, progress.best_epoch = -1.0, 0


def epochs_done(config: Config, checkpoint: Checkpoint) -> int:
    """Return the epochs complete for a run that resumes from a checkpoint; a skipped stage 1 counts as complete."""
    if (training := checkpoint.training) is not None:
        return training.progress.epoch
    return max(config.train.stage1_epochs if config.train.skip_stage1 else 0, epochs_complete(checkpoint.content))


def report_changes(config: Config, checkpoint: Checkpoint) -> None:
    """Print which settings differ from those of the checkpoint's run, and the effect of each change."""
    own = checkpoint.own
    if own is None or own.training is None or own.config is None:
        return
    for change in changes(from_mapping(own.config, str(checkpoint.path)), config):
        if change.effect == "another run":
            console.warn(f"changed {change}")
        else:
            console.say(f"Changed {change}")


def copy_best(run: Run, path: Path) -> None:
    """Copy the best weights so far into the run folder, from next to the checkpoint `path`, if they are missing.

    If that fails, they are forgotten, with a warning. Every rank must call this.
    """
    best = run.folder.best
    if run.world.is_main and run.state.progress.has_best and not best.exists():
        try:
            with atomic.replacing(best) as temporary:
                shutil.copyfile(path.parent / best.name, temporary)
        except OSError as error:
            _forget(run, error)
    run.state.progress = run.world.broadcast(run.state.progress)


def _check_best(run: Run, path: Path) -> None:
    """Forget the best score unless its weights are in the run folder or next to `path`."""
    progress, best, source = run.state.progress, run.folder.best, path.parent / run.folder.best.name
    if not progress.has_best and not best.exists():
        return
    try:
        there = best if best.exists() else source
        own = Checkpoint(there, read_checkpoint(there)).own
        if own is None and there == best:
            run.folder.refuse_foreign(best)
        if not progress.has_best:
            return
        scores = (own and own.scores) or {}
        if (scores.get("epoch"), scores.get("iou")) != (progress.best_epoch, progress.best_iou):
            raise CheckpointError(f"{best} does not contain this run's best weights, of epoch {progress.best_epoch}")
    except (CheckpointError, OSError) as error:
        if progress.has_best:  # otherwise it was damaged before this run had best weights
            _forget(run, error)


def _forget(run: Run, error: CheckpointError | OSError) -> None:
    reason = error.message if isinstance(error, CheckpointError) else error
    console.warn(f"{reason}; the best weights are chosen only from the epochs that follow")
    run.state.progress.best_iou, run.state.progress.best_epoch = -1.0, 0
