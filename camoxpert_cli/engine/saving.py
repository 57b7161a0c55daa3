"""What `last.pth` and `best_model.pth` hold of a run, and what happens where the disk is full.

A run folder holds at most three files of the size of `last.pth` (itself, the one before it, and the next one while it
is being written) and two of the size of `best_model.pth`.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import CheckpointNotWritten, checkpoint_bytes, write_checkpoint
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.engine.run import Run
from camoxpert_cli.run_folder import versions


def save_last(run: Run) -> None:
    """Write `last.pth`, all that the run needs to go on from here, and keep the one before it as `previous.pth`.

    Where the disk is full, `previous.pth` gives up its space; where that is not enough, `last.pth` stays what it was,
    `run.unsaved` says why, and training goes on: space may come back. A `last.pth` that this session has neither read
    nor written may be damaged, and never takes the place of `previous.pth`. Of several ranks the main one saves.
    """
    assert run.optimizer is not None
    if not run.world.is_main:
        return
    started = time.perf_counter()
    training = {
        "progress": asdict(run.progress),
        "backbone_stages": run.backbone_stages,
        "training_pictures": run.data.digest,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "ema_updates": run.ema.updates if run.ema else 0,
        "computed_with": run.computed_with,
    }
    content = {**_weights(run), "training": training}
    failure = _write_last(run, content)
    if failure is not None and _make_room(run):
        failure = _write_last(run, content)
    run.unsaved = failure
    if failure is not None:
        console.warn(f"{failure.message}; training goes on, and the next save tries again")
        return
    run.trusts_last = True
    run.saved_at = (run.progress.epoch, run.progress.samples)
    run.reserve.saving = max(run.reserve.saving, time.perf_counter() - started)


def save_best(run: Run) -> bool:
    """Write `best_model.pth`: weights, settings and scores. False where the disk is full and it stays what it was."""
    try:
        write_checkpoint(run.folder.best, _weights(run))
    except CheckpointNotWritten as error:
        console.warn(f"{error.message}; training goes on with the best weights before these")
        return False
    return True


def _write_last(run: Run, content: dict[str, Any]) -> CheckpointNotWritten | None:
    """Why it could not be written; None where it was."""
    try:
        write_checkpoint(run.folder.last, content, keep_as=run.folder.previous if run.trusts_last else None)
    except CheckpointNotWritten as error:
        return CheckpointNotWritten(error.message, error.hint)  # without the frames that the other one holds
    return None


def _make_room(run: Run) -> bool:
    """Give up `previous.pth` where it and a full disk are what stands in the way."""
    folder = run.folder
    full = shutil.disk_usage(folder.path).free < checkpoint_bytes(run.network, run.ema is not None)
    if not (full and folder.last.exists() and folder.previous.exists()):
        return False
    with suppress(OSError):
        folder.previous.unlink()
        console.warn(f"the disk is full: {folder.previous} was removed to make room for the next {folder.last.name}")
        return True
    return False


def _weights(run: Run) -> dict[str, Any]:
    history = run.progress.history
    return {
        "backbone": run.config.model.backbone,
        "num_experts": run.config.model.num_experts,
        "network": run.network.state_dict(),
        "ema": run.ema.network.state_dict() if run.ema else None,
        "epoch": run.progress.epoch,
        "scores": history[-1] if history and run.progress.samples == 0 else None,
        "history": history,
        "config": to_mapping(run.config),
        "versions": versions(),
    }
