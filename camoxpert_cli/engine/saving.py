"""Write `last.pth` and `best_model.pth`, and handle a full disk.

A run folder contains at most three files of the size of `last.pth` (itself, the previous one, and the next one while it
is being written) and two of the size of `best_model.pth`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import (
    CheckpointContent,
    CheckpointNotWritten,
    OptimizerState,
    ScalerState,
    StartContent,
    TrainingContent,
    checkpoint_bytes,
    write_checkpoint,
)
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.build import RunData
from camoxpert_cli.engine.state import TrainingState
from camoxpert_cli.engine.time_limit import Reserve
from camoxpert_cli.errors import CamoxError, TrainingError
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder, versions

# How training steps are executed; the two differ by rounding.
EAGER, COMPILED = "eager", "compiled"


class Saver:
    """Writer of a run's checkpoints. Every rank must call it; the main one writes."""

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        data: RunData,
        state: TrainingState,
        world: World,
        reserve: Reserve,
        device: torch.device,
        dtype: torch.dtype | None,
        now: Callable[[], float],
    ) -> None:
        """Record the time that saving takes, by the clock `now`, in `reserve`."""
        self._folder, self.config, self._data, self._state = folder, config, data, state
        self._world, self._reserve, self._device, self._dtype, self._now = world, reserve, device, dtype, now
        self.write: Callable[[Path, CheckpointContent, Path | None], None] = write_checkpoint
        """Writes a checkpoint to disk and keeps the previous file under the path in the last argument."""
        self.start: StartContent | None = None
        """How the run was started, as each checkpoint records."""
        self.trusts_last = False
        """Whether `last.pth` is known to be intact: this session wrote it or resumed from it."""
        self.execution = EAGER
        """How training steps are executed at present."""
        self.unsaved: CheckpointNotWritten | None = None
        """Why the last attempt to save failed."""
        self._saved_at: tuple[int, int] | None = None

    @property
    def is_up_to_date(self) -> bool:
        """Whether this session wrote a `last.pth` of the run's current position."""
        return self._saved_at == (self._state.progress.epoch, self._state.progress.samples)

    def save_last(self) -> None:
        """Write `last.pth`, all that the run needs to resume from here, and keep the previous one as `previous.pth`.

        If the disk is full, `previous.pth` is removed to make room; if that is not enough, `last.pth` stays unchanged,
        `unsaved` says why, and training continues: space may become free. A `last.pth` that this session has neither
        read nor written may be damaged, and never replaces `previous.pth`.
        """
        if not self._world.is_main:
            return
        self._require_folder()
        started = self._now()
        content = replace(self._weights(), training=self._training())
        failure = self._write_last(content)
        if failure is not None and self._make_room():
            failure = self._write_last(content)
        self.unsaved = failure
        if failure is not None:
            console.warn(f"{failure.message}; training continues, and the next save tries again")
            return
        self.trusts_last = True
        self._saved_at = (self._state.progress.epoch, self._state.progress.samples)
        self._reserve.note_saving(self._now() - started)

    def save_best(self) -> bool:
        """Write `best_model.pth`: weights, settings and scores.

        Returns False, on every rank, if the disk is full and the file was left unchanged.
        """
        return self._world.broadcast(self._write_best())

    def _write_best(self) -> bool:
        if not self._world.is_main:
            return False
        self._require_folder()
        try:
            self.write(self._folder.best, self._weights(), None)
        except CheckpointNotWritten as error:
            console.warn(f"{error.message}; training continues, and the previous best weights are kept")
            return False
        return True

    def _write_last(self, content: CheckpointContent) -> CheckpointNotWritten | None:
        """Return why it could not be written, None if it was."""
        try:
            keep_as = self._folder.previous if self.trusts_last else None
            self.write(self._folder.last, content, keep_as)
        except CheckpointNotWritten as error:
            return CheckpointNotWritten(error.message, error.hint)  # without the frames that the original refers to
        return None

    def _require_folder(self) -> None:
        """Stop a run whose folder was moved or deleted, saving its state at the folder's old path if possible.

        Its best weights and logs are elsewhere then, and only the user knows where. Raises TrainingError.
        """
        folder = self._folder
        try:
            folder.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:  # a network disk that is unavailable for now: the write reports it, and the next tries again
            return
        else:
            return
        message = f"the run folder {folder.path} no longer exists: it was moved or deleted"
        try:
            folder.path.mkdir()  # but no parents: another disk may be mounted by now
            folder.write_settings(to_mapping(self.config))
            self.write(folder.last, replace(self._weights(), training=self._training()), None)
        except (OSError, CamoxError):
            raise TrainingError(
                f"{message}, and nothing can be saved there", "camox resume FOLDER, with its new path"
            ) from None
        raise TrainingError(
            f"{message}; the current state was saved to a new folder there",
            f"{folder.resume_command}; or, if the folder was moved, move {folder.last} into it and resume "
            "it at its new path",
        )

    def _make_room(self) -> bool:
        """Remove `previous.pth` if the disk is full; return whether that made room."""
        folder, state = self._folder, self._state
        with suppress(OSError):
            full = shutil.disk_usage(folder.path).free < checkpoint_bytes(state.network, state.ema is not None)
            if not (full and folder.last.exists() and folder.previous.exists()):
                return False
            folder.previous.unlink()
            console.warn(
                f"the disk is full: {folder.previous} was removed to make room for the next {folder.last.name}"
            )
            return True
        return False

    def _weights(self) -> CheckpointContent:
        state = self._state
        history = state.progress.history
        return CheckpointContent(
            backbone=self.config.model.backbone,
            num_experts=self.config.model.num_experts,
            network=state.network.state_dict(),
            ema=state.ema.network.state_dict() if state.ema else None,
            epoch=state.progress.epoch,
            scores=history[-1] if history and state.progress.samples == 0 else None,
            history=history,
            config=to_mapping(self.config),
            versions=versions(),
            images=self._data.full_digest,
            start=self.start,
        )

    def _training(self) -> TrainingContent:
        state = self._state
        assert state.optimizer is not None
        assert state.backbone_stages is not None
        return TrainingContent(
            progress=deepcopy(state.progress),
            backbone_stages=state.backbone_stages,
            training_images=self._data.digest,
            optimizer=cast(OptimizerState, state.optimizer.state_dict()),
            scaler=cast(ScalerState, state.scaler.state_dict()),
            ema_updates=state.ema.updates if state.ema else 0,
            computed_with=self.computed_with,
        )

    @property
    def computed_with(self) -> dict[str, str]:
        """What rounding depends on: device, precision, torch version and compilation."""
        on_cpu = self._device.type == "cpu"
        name = f"CPU, threads {torch.get_num_threads()}" if on_cpu else torch.cuda.get_device_name(self._device)
        precision = str(self._dtype or torch.float32).removeprefix("torch.")
        version = f"torch {torch.__version__}"
        return {"device": name, "precision": precision, "version": version, "execution": self.execution}
