"""Write the files of one save, and handle a full disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from camoxpert_cli.checkpoints.format import CheckpointContent, CheckpointNotWritten
from camoxpert_cli.run_folder import RunFolder

Write: TypeAlias = Callable[[Path, CheckpointContent, Path | None], None]
"""Writes a checkpoint to a path and keeps the previous file under the path in the last argument."""


class Best(NamedTuple):
    """Validation IoU and epoch of the best weights so far; IoU -1 for none."""

    iou: float
    epoch: int


@dataclass(frozen=True)
class Save:
    """One save: `content` is that of `last.pth`, of `size` bytes; `keep_as` is where the previous one is kept, if so.

    If the content is that of a new best epoch, `best_model.pth` is written first, and `best_before` is what it has been
    until then.
    """

    content: CheckpointContent
    size: int
    keep_as: Path | None
    best_before: Best | None = None


@dataclass
class Written:
    """How the save of a `position` (complete epochs, images seen in the next one) went.

    `failure` is why `last.pth` was not written, `seconds` the time that it took. If `best_model.pth` was not written,
    `best` is what it still is. `warnings` are for the user.
    """

    position: tuple[int, int]
    failure: CheckpointNotWritten | None = None
    seconds: float = 0.0
    best: Best | None = None
    warnings: list[str] = field(default_factory=list)


def write_files(save: Save, folder: RunFolder, write: Write, now: Callable[[], float]) -> Written:
    """Write `best_model.pth`, if the save has it, then `last.pth`, and return how it went. `now` is the clock.

    `last.pth` never names weights as the best that were not written. If the disk is full, `previous.pth` is removed to
    make room; if that is not enough, `last.pth` stays unchanged.
    """
    content = save.content
    assert content.training is not None
    written = Written((content.training.progress.epoch, content.training.progress.samples))
    if save.best_before is not None:
        try:
            write(folder.best, replace(content, training=None), None)
        except CheckpointNotWritten as error:
            written.warnings.append(f"{error.message}; training continues, and the previous best weights are kept")
            written.best = save.best_before
            content = with_best(content, save.best_before)
    started = now()
    written.failure = _write_last(folder, content, save.keep_as, write)
    if written.failure is not None and _make_room(folder, save.size):
        written.warnings.append(
            f"the disk is full: {folder.previous} was removed to make room for the next {folder.last.name}"
        )
        written.failure = _write_last(folder, content, save.keep_as, write)
    if written.failure is not None:
        written.warnings.append(f"{written.failure.message}; training continues, and the next save tries again")
    written.seconds = now() - started
    return written


def with_best(content: CheckpointContent, best: Best) -> CheckpointContent:
    """Return the content of `last.pth` with `best` as the best weights so far."""
    assert content.training is not None
    progress = replace(content.training.progress, best_iou=best.iou, best_epoch=best.epoch)
    return replace(content, training=replace(content.training, progress=progress))


def _write_last(
    folder: RunFolder, content: CheckpointContent, keep_as: Path | None, write: Write
) -> CheckpointNotWritten | None:
    """Return why it could not be written, None if it was."""
    try:
        write(folder.last, content, keep_as)
    except CheckpointNotWritten as error:
        return CheckpointNotWritten(error.message, error.hint)  # without the frames that the original refers to
    return None


def _make_room(folder: RunFolder, size: int) -> bool:
    """Remove `previous.pth` if the disk has no `size` bytes; return whether that made room."""
    with suppress(OSError):
        full = shutil.disk_usage(folder.path).free < size
        if full and folder.last.exists() and folder.previous.exists():
            folder.previous.unlink()
            return True
    return False
