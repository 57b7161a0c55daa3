"""What `last.pth` and `best_model.pth` hold of a run, and what happens where the disk is full.

A run folder holds at most three files of the size of `last.pth` (itself, the one before it, and the next one while it
is being written) and two of the size of `best_model.pth`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.config.load import to_mapping
from camoxpert_cli.data.layouts import Pair
from camoxpert_cli.engine.checkpoint import CheckpointNotWritten, write_checkpoint
from camoxpert_cli.engine.run import Run
from camoxpert_cli.runs import versions


def save_last(run: Run) -> None:
    """Write `last.pth`, all that the run needs to go on from here, and keep the one before it as `previous.pth`.

    Where the disk is full, `previous.pth` gives up its space; where that is not enough, `last.pth` stays what it was,
    `run.unsaved` says why, and training goes on: space may come back.
    """
    assert run.optimizer is not None
    assert run.phase is not None
    started = time.perf_counter()
    training = {
        "progress": asdict(run.progress),
        "stage": run.phase.stage.number,
        "backbone_stages": run.backbone_stages,
        "training_pictures": digest_of(run.data.train),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "ema_updates": run.ema.updates if run.ema else 0,
        "computed_with": run.computed_with,
    }
    content = {**_weights(run), "training": training}
    folder = run.folder
    try:
        try:
            write_checkpoint(folder.last, content, keep_as=folder.previous)
        except CheckpointNotWritten:
            if not (folder.last.exists() and folder.previous.exists()):
                raise
            folder.previous.unlink()
            write_checkpoint(folder.last, content)
            console.warn(f"the disk is nearly full: {folder.previous.name} was removed to write {folder.last}")
    except CheckpointNotWritten as error:
        run.unsaved = error
        console.warn(f"{error.message}; training goes on, and the next save tries again")
        return
    run.unsaved = None
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


def digest_of(pairs: Sequence[Pair]) -> str:
    """Of the training pictures' names, so that a run never goes on with others."""
    return hashlib.sha256("\n".join(pair.name for pair in pairs).encode()).hexdigest()


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
