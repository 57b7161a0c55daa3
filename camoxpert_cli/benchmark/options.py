"""What `camox benchmark` is asked to compare, and where its table goes: checked before anything takes time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from camoxpert_cli.config.parse import parse_counts, parse_names
from camoxpert_cli.config.schema import Strategy
from camoxpert_cli.errors import UsageError

# In the order in which they are compared where none is named: the last of the setting first.
STRATEGIES = tuple(name for name in reversed(get_args(Strategy)) if name not in ("auto", "single"))


def check_counts(text: str) -> tuple[int, ...]:
    """`1,2` -> (1, 2). Raises UsageError."""
    try:
        return parse_counts(text)
    except ValueError as error:
        raise UsageError(f"--gpus is {text!r}, expected {error}", "camox benchmark --gpus 1,2") from error


def check_strategies(text: str) -> tuple[str, ...]:
    """`dp,ddp` -> ("dp", "ddp"). Raises UsageError."""
    return parse_names("--strategy", text, STRATEGIES, expected="one or both of dp and ddp", example="dp,ddp")


def check_out(path: Path) -> Path:
    """A file that can be written. Raises UsageError."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        problem = "is a folder" if path.is_dir() else f"cannot be written: {folder} is no folder that takes files"
        raise UsageError(f"--out {path} {problem}", "--out benchmark.md")
    return path
