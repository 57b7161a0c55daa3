"""Save a run: copy its state, and write `last.pth` and `best_model.pth` behind the next steps.

A run folder contains at most three files of the size of `last.pth` (itself, the previous one, and the next one while it
is being written) and two of the size of `best_model.pth`. Host memory contains at most one copy of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
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
from camoxpert_cli.engine.background import Background
from camoxpert_cli.engine.build import RunData
from camoxpert_cli.engine.state import TrainingState
from camoxpert_cli.engine.state_copy import NoMemoryForCopy, on_host
from camoxpert_cli.engine.time_limit import Reserve
from camoxpert_cli.engine.writing import Best, Save, Write, Written, with_best, write_files
from camoxpert_cli.errors import CamoxError, TrainingError
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder, versions

# How training steps are executed; the two differ by rounding.
EAGER, COMPILED = "eager", "compiled"


class Saver:
    """Writer of a run's checkpoints. Every rank must call it; the main one writes.

    At most one save is being written. How it went is known once `poll`, `wait` or the next save has found that it has
    ended.
    """

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
        self.write: Write = write_checkpoint
        """Writes a checkpoint to disk, also on another thread while training continues."""
        self.start: StartContent | None = None
        """How the run was started, as each checkpoint records."""
        self.trusts_last = False
        """Whether `last.pth` is known to be intact: this session wrote it or resumed from it."""
        self.execution = EAGER
        """How training steps are executed at present."""
        self.unsaved: CheckpointNotWritten | None = None
        """Why the last attempt to save failed."""
        self._saved_at: tuple[int, int] | None = None
        self._background: Background[Written] = Background()
        self._told_of_memory = False

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
        self.wait()
        started, save = self._now(), self._save(None)
        self._require_folder(save.content)
        self._conclude(self._write(save, started))

    def save_start(self, scores: dict[str, float], best_before: Best) -> None:
        """Write the weights that the run starts with, and their scores, to `best_model.pth`, then `last.pth`."""
        if not self._world.is_main:
            return
        self.wait()
        started, save = self._now(), self._save(best_before)
        self._require_folder(with_best(save.content, best_before))
        self._conclude(self._write(replace(save, content=replace(save.content, scores=scores)), started))

    def save_behind(self, best_before: Best | None = None) -> None:
        """Copy the state and return; it is written as `save_last` does while training continues.

        If the completed epoch is the best so far, `best_before` is what was until then, and `best_model.pth` is written
        first: weights, settings and scores. If that fails, the best is again what it was; see `settle`. Waits for the
        save before. Without memory for a copy, writes before it returns.
        """
        if not self._world.is_main:
            return
        self.wait()
        started, save = self._now(), self._save(best_before)
        self._require_folder(save.content if best_before is None else with_best(save.content, best_before))
        try:
            save = replace(save, content=on_host(save.content))
        except NoMemoryForCopy:
            if not self._told_of_memory:
                console.warn("too little memory for a copy of the training state: training waits while it is saved")
            self._told_of_memory = True
            self._conclude(self._write(save, started))
        else:
            self._reserve.in_flight = 1 if best_before is None else 2
            self._background.start(partial(self._write, save, started))
        self._reserve.note_pause(self._now() - started)

    def ensure_saved(self) -> None:
        """Write `last.pth` unless this session has saved the run's current position."""
        self.wait()
        if not self.is_up_to_date:
            self.save_last()

    def poll(self) -> None:
        """If a save has ended, report how it went. Raises its error if it was none that a disk can have."""
        if self._background.is_done:
            self.wait()

    def wait(self) -> None:
        """Wait for the save that is being written, if there is one, and report how it went as `poll` does."""
        if self._background.is_busy:
            self._conclude(self._background.result())

    def settle(self) -> None:
        """Wait as `wait` does; then all ranks agree on the best epoch so far. Every rank must call this."""
        self.wait()
        progress = self._state.progress
        progress.best_iou, progress.best_epoch = self._world.broadcast((progress.best_iou, progress.best_epoch))

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Wait at the end for the save that is being written, also after an error.

        A signal that asks to stop immediately ends it instead.
        """
        try:
            try:
                yield
            except KeyboardInterrupt:
                raise
            except BaseException:
                try:
                    self.wait()
                except Exception as error:  # the first one is reported
                    console.warn(f"the last save failed: {error}")
                raise
            self.wait()
        except KeyboardInterrupt:
            self._background.abandon()
            raise

    def _save(self, best_before: Best | None) -> Save:
        size = checkpoint_bytes(self._state.network, self._state.ema is not None)
        keep_as = self._folder.previous if self.trusts_last else None
        return Save(self._content(), size, keep_as, best_before)

    def _write(self, save: Save, started: float) -> Written:
        """Write the files of a save that began at `started`; runs on either thread."""
        copied = self._now()
        try:
            written = write_files(save, self._folder, self.write, self._now)
        finally:
            self._reserve.in_flight = 0
        written.seconds += copied - started
        return written

    def _conclude(self, written: Written) -> None:
        progress, self.unsaved = self._state.progress, written.failure
        for warning in written.warnings:
            console.warn(warning)
        if written.best is not None:
            progress.best_iou, progress.best_epoch = written.best
        if written.failure is None:
            self.trusts_last = True
            self._saved_at = written.position
            self._reserve.note_saving(written.seconds)

    def _require_folder(self, content: CheckpointContent) -> None:
        """Stop a run whose folder was moved or deleted, saving `content` at the folder's old path if possible.

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
            self.write(folder.last, content, None)
        except (OSError, CamoxError):
            raise TrainingError(
                f"{message}, and nothing can be saved there", "camox resume FOLDER, with its new path"
            ) from None
        raise TrainingError(
            f"{message}; the current state was saved to a new folder there",
            f"{folder.resume_command}; or, if the folder was moved, move {folder.last} into it and resume "
            "it at its new path",
        )

    def _content(self) -> CheckpointContent:
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
            training=self._training(),
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
