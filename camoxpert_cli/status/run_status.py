"""What a run folder says about its run: how far it got, what remains, and the command that continues it.

Only reads, and works while the run goes on: files may be replaced, or vanish, at any moment. Does not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from camoxpert_cli.checkpoints.summary import CheckpointSummary, rows_of, summarize
from camoxpert_cli.config.resolve import from_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.ending import early_stop
from camoxpert_cli.engine.epochs import epoch_images
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.stages import Phase, keep_unfrozen
from camoxpert_cli.errors import ConfigError
from camoxpert_cli.regular_file import read_regular
from camoxpert_cli.run_folder import BEST, CHECKPOINTS, RunFolder
from camoxpert_cli.status.in_use import is_in_use
from camoxpert_cli.status.log_end import read_log_end
from camoxpert_cli.status.remaining import Remaining, remaining

# Complete epochs, and images of the next one.
Position: TypeAlias = tuple[int, int]
# Of results.json or history.json, above any real one.
_MOST_BYTES = 2**26


@dataclass(frozen=True)
class RunStatus:
    """The status of a run; None for what its files do not say.

    `complete`: no epoch is left, and the best weights are scored. `early_stop`: why it ended before its last epoch,
    if it did. `running`: a process of this machine is using the folder. `position`: how far the run got. `checkpoint`:
    the name of the file from which it resumes, and `saved` its position. `images`: those of an epoch. `seconds`:
    training time of all sessions. `next`: a command.
    """

    folder: RunFolder
    complete: bool
    early_stop: str | None
    running: bool | None
    position: Position
    saved: Position
    checkpoint: str | None
    epochs: int | None
    images: int | None
    stage: int | None
    best_epoch: int | None
    best_iou: float | None
    seconds: float
    remaining: Remaining | None
    time_limit: str | None
    session_limit: str | None
    last_activity: float | None  # seconds since 1970
    checkpoints: Mapping[str, CheckpointSummary]  # those that exist, in the order in which resume tries them
    next: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        left = self.remaining
        files = {
            name: {
                **{"bytes": each.size, "modified": each.modified, "intact": each.intact},
                **{"problem": each.problem or None, "epoch": each.epoch, "samples": each.samples},
            }
            for name, each in self.checkpoints.items()
        }
        return {
            "run_folder": str(self.folder.path),
            "complete": self.complete,
            "early_stop": self.early_stop,
            "running": self.running,
            "epoch": self.position[0],
            "epochs": self.epochs,
            "samples": self.position[1],
            "images": self.images,
            "stage": self.stage,
            "best_epoch": self.best_epoch,
            "best_iou": self.best_iou,
            "seconds": round(self.seconds, 1),
            "seconds_left": None if left is None else round(left.seconds, 1),
            "lower_bound": left is not None and left.is_lower_bound,
            "time_limit": self.time_limit,
            "session_limit": self.session_limit,
            "last_activity": self.last_activity,
            "checkpoint": self.checkpoint,
            "checkpoints": files,
            "next": self.next,
        }


def read_status(folder: RunFolder) -> RunStatus:
    """Return the status of the run in a folder. Raises nothing if files are missing or damaged."""
    running = is_in_use(folder.path)  # first: a run that ends meanwhile has then written all its files
    checkpoints = {name: found for name in CHECKPOINTS if (found := summarize(folder.path / name)) is not None}
    checkpoint = next((name for name, each in checkpoints.items() if each.intact), None)
    last = None if checkpoint is None else checkpoints[checkpoint]
    log = read_log_end(folder.metrics)
    # Each session writes its settings before it saves anything.
    config = _first_valid(folder.settings, None if last is None else last.config)
    epochs = None if config is None else config.train.epochs
    phases = [] if config is None else build_phases(config)
    start = (phases[0].first if phases else 0, 0)
    saved = start if last is None else (last.epoch or 0, last.samples or 0)
    position = max(saved, log.position or start)
    history = max(() if last is None else last.history, rows_of(_json(folder.history)), key=len)
    done = max([position[0], *(row["epoch"] for row in history[-1:])])
    stopped = None if config is None or last is None else early_stop(config, saved[0], last.best_epoch)
    # Whoever keeps the best weights alone has a complete run; one that is being extended has no scores.
    complete = folder.is_complete(trained=done >= (epochs or 0) or stopped is not None)
    if complete:
        results = folder.results_of_run or {}
        stopped = results.get("early_stop")
        trained = results.get("epochs")  # absent in files of camox 0.1
        position = (trained if type(trained) is int else epochs or done, 0)
    ahead = saved if running is False and not complete else position
    spent = 0.0 if last is None or len(last.history) < len(history) else last.epoch_seconds
    phases = keep_unfrozen(phases, saved[0], 0 if last is None else last.backbone_stages)
    if stopped is not None:
        phases = [replace(phase, end=min(phase.end, position[0])) for phase in phases]  # nothing remains
    return RunStatus(
        folder=folder,
        complete=complete,
        early_stop=stopped,
        running=running,
        position=position,
        saved=saved,
        checkpoint=checkpoint,
        epochs=epochs,
        images=_images(config, position[0], log.images),
        stage=next((phase.stage.number for phase in phases if phase.end > position[0]), None),
        best_epoch=None if last is None else last.best_epoch,
        best_iou=None if last is None else last.best_iou,
        seconds=sum(row["seconds"] for row in history) + spent,
        remaining=_remaining(config, phases, history, ahead, log.images, spent),
        time_limit=None if config is None else config.run.time_limit,
        session_limit=None if config is None else config.run.session_limit,
        last_activity=max(filter(None, (_modified(folder.metrics), _modified(folder.last))), default=None),
        checkpoints=checkpoints,
        next=_next(folder, checkpoints, last, config, complete=complete),
    )


def _first_valid(*settings: Mapping[str, Any] | None) -> Config | None:
    for each in filter(None, settings):
        try:
            return from_mapping(each, "")
        except ConfigError:  # damaged, or of a later version
            continue
    return None


def _json(path: Path) -> Any:
    try:
        return json.loads(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None


def _images(config: Config | None, epoch: int, images: int | None) -> int | None:
    """The number of images in `epoch` (from 0); a whole one has `images`."""
    return images if config is None or images is None else epoch_images(config, epoch, images)


def _remaining(
    config: Config | None,
    phases: Sequence[Phase],
    history: Sequence[Mapping[str, Any]],
    position: Position,
    images: int | None,
    spent: float,
) -> Remaining | None:
    if config is None or not phases:
        return None
    epoch, samples = position
    share = 0.0 if samples == 0 else min(1.0, samples / images) if images else None
    unseen = 1 - epoch_images(config, config.train.epochs - 1, images) / images if images else 0.0
    return remaining(phases, history, epoch, share=share, spent=spent, unseen=unseen)


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _next(
    folder: RunFolder,
    checkpoints: Mapping[str, CheckpointSummary],
    last: CheckpointSummary | None,
    config: Config | None,
    *,
    complete: bool,
) -> str | None:
    if complete:
        return folder.predict_command if BEST in checkpoints and checkpoints[BEST].intact else None
    if not checkpoints:
        return folder.start_command
    if all(each.intact is False for each in checkpoints.values()):
        return None
    before = None if last is None else _first_valid(last.config)
    if before is None or config is None:
        return folder.resume_command
    # A longer run that has not been saved yet: the checkpoint still has the old numbers.
    options = [f"--epochs {config.train.epochs}"] if config.train.epochs > before.train.epochs else []
    if config.train.patience not in (None, before.train.patience):
        options.append(f"--patience {config.train.patience}")
    return " ".join([folder.resume_command, *options])
