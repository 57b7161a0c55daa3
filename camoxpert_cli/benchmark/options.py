"""What `camox benchmark` is asked to compare, and where its table goes: checked before anything takes time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from camoxpert_cli import atomic
from camoxpert_cli.config.parse import parse_counts, parse_names
from camoxpert_cli.config.schema import Strategy
from camoxpert_cli.errors import UsageError
from camoxpert_cli.targets import check_targets

TITLE = "# camox benchmark"  # the first line of the page

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


def check_out(path: Path, overwrite: bool = False, inputs: Iterable[Path] = ()) -> Path:
    """A file that can be written; with `overwrite` it may be an earlier table, but none of `inputs`. UsageError."""
    hint = "--out benchmark.md"
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir():
        problem = "is a folder" if path.is_dir() else f"cannot be written: {folder} is no folder that takes files"
        raise UsageError(f"--out {path} {problem}", hint)
    check_targets([path], hint, is_ours=_is_table, overwrite=overwrite, inputs=inputs)
    atomic.sweep(path)
    return path


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().strip() == TITLE.encode()
