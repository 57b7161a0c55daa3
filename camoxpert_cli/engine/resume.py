"""What `last.pth` and `best_model.pth` hold of a run, and how a run goes on from one."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from camoxpert_cli import atomic, console
from camoxpert_cli.config.load import to_mapping
from camoxpert_cli.engine.checkpoint import average_in, load_weights, weights_of, write_checkpoint
from camoxpert_cli.engine.optimizer import build_optimizer
from camoxpert_cli.engine.run import Progress, Run
from camoxpert_cli.engine.stages import WHOLE_BACKBONE, Phase
from camoxpert_cli.errors import CheckpointError, UsageError
from camoxpert_cli.runs import versions


def save_last(run: Run) -> None:
    """Write `last.pth`: all that the run needs to go on from here."""
    assert run.optimizer is not None
    assert run.phase is not None
    training = {
        "progress": asdict(run.progress),
        "stage": run.phase.stage.number,
        "backbone_stages": run.phase.backbone_stages,
        "training_pictures": _digest(run),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "ema_updates": run.ema.updates if run.ema else 0,
    }
    write_checkpoint(run.folder.last, {**_weights(run), "training": training})


def save_best(run: Run) -> None:
    """Write `best_model.pth`: weights, settings and scores."""
    write_checkpoint(run.folder.best, _weights(run))


def restore(run: Run, checkpoint: dict[str, Any], path: Path) -> None:
    """Go on where `checkpoint` stopped; the network has its weights already.

    A checkpoint of the original program holds weights and an epoch, `best_model.pth` of camox also its scores: the rest
    starts anew, and that is said. Raises CheckpointError where the training state does not fit the settings, UsageError
    where these leave nothing to do.
    """
    if run.ema is not None and average_in(checkpoint) is not None:
        load_weights(run.ema.network, weights_of(checkpoint, ema=True), path)
    if "training" in checkpoint:
        _restore_training(run, checkpoint["training"], path)
    else:
        _restore_epoch_only(run, checkpoint, path)
    _bring_best(run, path)
    if run.progress.epoch >= run.config.train.epochs and run.progress.best_epoch == 0:
        raise UsageError(
            f"{path} has {run.progress.epoch} complete epochs, which is all that these settings ask for, "
            "and the best weights are not beside it",
            "ask for more with --epochs",
        )
    run.folder.log("resume", checkpoint=str(path), epoch=run.progress.epoch, samples=run.progress.samples)


def _restore_training(run: Run, training: dict[str, Any], path: Path) -> None:
    settings = "resume with the settings the run was started with (config.yaml in its folder)"
    try:
        if training["training_pictures"] != _digest(run):
            raise CheckpointError(
                f"{path} was trained on other pictures than these settings hold out for training, so that validation "
                "pictures would not be unseen",
                settings,
            )
        run.progress = Progress(**training["progress"])
        enter_phase(run, _phase_like(run, training["stage"], training["backbone_stages"]))
        assert run.optimizer is not None
        current = [(group["lr_factor"], group["weight_decay"]) for group in run.optimizer.param_groups]
        run.optimizer.load_state_dict(training["optimizer"])
        for group, (factor, decay) in zip(run.optimizer.param_groups, current, strict=True):
            group["lr_factor"], group["weight_decay"] = factor, decay
        if run.scaler.is_enabled() and training["scaler"]:
            run.scaler.load_state_dict(training["scaler"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the training state in {path} does not fit these settings: {error}",
            settings,
        ) from error
    if run.ema is not None:
        run.ema.updates = training["ema_updates"]
    within = f", {run.progress.samples} pictures into the next" if run.progress.samples else ""
    console.say(f"Going on from {path}: {run.progress.epoch} epochs are complete{within}")


def enter_phase(run: Run, phase: Phase) -> None:
    """Freeze and unfreeze, and rebuild the optimizer over what is trained now, as one act."""
    if run.phase == phase:
        return
    run.network.set_trainable(phase.backbone_stages, deep_heads=run.config.model.deep_supervision)
    run.optimizer = build_optimizer(
        run.network,
        weight_decay=run.config.train.weight_decay,
        backbone_lr_factor=run.config.train.backbone_lr_factor,
        previous=run.optimizer,
    )
    run.phase = phase
    trained = (
        f"the last {phase.backbone_stages} of its {WHOLE_BACKBONE} stages train" if phase.backbone_stages else "frozen"
    )
    epoch = max(phase.first, run.progress.epoch) + 1
    console.say(f"Epoch {epoch}: stage {phase.stage.number}, backbone: {trained}")


def _weights(run: Run) -> dict[str, Any]:
    history = run.progress.history
    return {
        "backbone": run.config.model.backbone,
        "num_experts": run.config.model.num_experts,
        "network": run.network.state_dict(),
        "ema": run.ema.network.state_dict() if run.ema else None,
        "epoch": run.progress.epoch,
        "scores": history[-1] if history and run.progress.samples == 0 else None,
        "config": to_mapping(run.config),
        "versions": versions(),
    }


def _phase_like(run: Run, stage: int, backbone_stages: int) -> Phase:
    for phase in run.phases:
        if (phase.stage.number, phase.backbone_stages) == (stage, backbone_stages):
            return phase
    raise ValueError(
        f"it was saved in stage {stage} with {backbone_stages} of {WHOLE_BACKBONE} backbone stages in training, "
        "which these settings never have"
    )


def _digest(run: Run) -> str:
    return hashlib.sha256("\n".join(pair.name for pair in run.data.train).encode()).hexdigest()


def _restore_epoch_only(run: Run, checkpoint: dict[str, Any], path: Path) -> None:
    # The original program counts epochs from 0 and stores the one it had just finished.
    complete = checkpoint["epoch"] if "network" in checkpoint else checkpoint.get("epoch", -1) + 1
    progress = run.progress
    progress.epoch = max(progress.epoch, int(complete))
    if checkpoint.get("scores") is not None:
        progress.history = [checkpoint["scores"]]
        progress.best_epoch, progress.best_iou = checkpoint["scores"]["epoch"], checkpoint["scores"]["iou"]
    if run.ema is not None and average_in(checkpoint) is not None:
        # An average that had begun anew would forget within a few steps what it holds.
        run.ema.updates = sum(
            len(range(phase.first, min(phase.end, progress.epoch))) * run.steps_per_epoch(phase.stage)
            for phase in run.phases
        )
    console.say(f"Going on from {path}: {progress.epoch} epochs are complete")
    console.warn("it holds weights only: optimizer, gradient scale and history start anew")


def _bring_best(run: Run, path: Path) -> None:
    """Have the best weights so far in the run folder: they lie beside `path`, or the best is sought anew."""
    best, source = run.folder.best, path.parent / run.folder.best.name
    if run.progress.best_epoch == 0 or best.exists():
        return
    if source.exists():
        with source.open("rb") as old, atomic.replacing(best) as new:
            shutil.copyfileobj(old, new)
    else:
        console.warn(f"there is no {source}: only epochs from here on count as the best")
        run.progress.best_iou, run.progress.best_epoch = -1.0, 0
