"""Curves for TensorBoard.

The horizontal axis counts training images since the run began, independent of the batch size, plus one for each
completed epoch: the position from which a session resumes never coincides with a point that is to be discarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.engine.named_numbers import named_numbers
from camoxpert_cli.errors import UsageError

FOLDER = "tensorboard"
_FLUSH_SECONDS = 30


def summary_writer() -> Any:
    """Return torch's SummaryWriter class. Raises UsageError if the tensorboard package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            f"--tensorboard requires the tensorboard package: {error}", "python -m pip install tensorboard"
        ) from error
    return SummaryWriter


class Curves:
    """TensorBoard curves in `folder` from `position` on; later points of an earlier session are hidden."""

    def __init__(self, folder: Path, position: int) -> None:
        self._folder = folder
        self._writer: Any = None
        try:
            self._writer = summary_writer()(str(folder), purge_step=position + 1, flush_secs=_FLUSH_SECONDS)
        except OSError as error:
            self._give_up(error)

    def write(self, event: str, values: Mapping[str, Any], position: int) -> None:
        """Write every number in `values` at `position`."""
        if self._writer is None:
            return
        try:
            for name, number in named_numbers(event, values):
                self._writer.add_scalar(name, number, position)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        console.warn(f"{self._folder} cannot be written: {error.strerror or error}; training continues without it")
        self._writer = None
