"""How far a run got, from the end of its metrics.jsonl, which may have hundreds of megabytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from camoxpert_cli.regular_file import open_regular

# Enough for an epoch of some ten thousand steps.
_MOST = 2**22


class LogEnd(NamedTuple):
    """The run's position, as complete epochs and images of the next one, and the images per epoch; None if unknown."""

    position: tuple[int, int] | None = None
    images: int | None = None


def read_log_end(path: Path, most: int = _MOST) -> LogEnd:
    """Return what the last `most` bytes of the log say. A missing, unreadable or damaged log says nothing."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most))
            lines = file.read(most).splitlines()
    except OSError:
        return LogEnd()
    position, closed = None, None
    for event in _events(lines[::-1]):  # a line that was cut off, by the start or while it was written, is no event
        position = position or event.position
        if event.kind == "epoch" and closed is None:
            closed = event.position[0]
        elif event.kind == "step" and closed == event.position[0] + 1:
            return LogEnd(position, event.position[1])  # the last step of an epoch has seen all images
    return LogEnd(position)


class _Event(NamedTuple):
    kind: str
    position: tuple[int, int]


def _events(lines: list[bytes]) -> Iterator[_Event]:
    for line in lines:
        try:
            row = json.loads(line)
            kind, epoch, samples = row["event"], row["epoch"], row.get("samples", 0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
        if not (_is_count(epoch) and _is_count(samples)):
            continue
        if kind == "step" and epoch > 0:
            yield _Event(kind, (epoch - 1, samples))
        elif kind in ("epoch", "resume"):
            yield _Event(kind, (epoch, samples if kind == "resume" else 0))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53
