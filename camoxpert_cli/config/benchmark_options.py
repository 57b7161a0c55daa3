"""What `camox benchmark` is asked to compare, and where its table goes: checked before anything takes time."""

from __future__ import annotations

import os
from pathlib import Path

from camoxpert_cli.config.devices import parse_counts
from camoxpert_cli.errors import UsageError, nearest

STRATEGIES = ("ddp", "dp")


def check_counts(text: str) -> tuple[int, ...]:
    """`1,2` -> (1, 2). Raises UsageError."""
    try:
        return parse_counts(text)
    except ValueError as error:
        raise UsageError(f"--gpus is {text!r}, expected {error}", "camox benchmark --gpus 1,2") from error


def check_strategies(text: str) -> tuple[str, ...]:
    """`dp,ddp` -> ("dp", "ddp"). Raises UsageError."""
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(STRATEGIES) or len(set(names)) < len(names):
        wrong = next((name for name in names if name not in STRATEGIES), "ddp")
        raise UsageError(
            f"--strategy is {text!r}, expected one or both of dp and ddp",
            f"--strategy {(nearest(wrong, STRATEGIES) or ['dp,ddp'])[0]}",
        )
    return names


def check_out(path: Path) -> Path:
    """A file that can be written. Raises UsageError."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        problem = "is a folder" if path.is_dir() else f"cannot be written: {folder} is no folder that takes files"
        raise UsageError(f"--out {path} {problem}", "--out benchmark.md")
    return path
