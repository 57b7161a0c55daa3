"""Validate the options of `camox benchmark` before anything slow starts."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from camoxpert_cli import atomic
from camoxpert_cli.config.parse import parse_counts, parse_names
from camoxpert_cli.config.schema import Strategy
from camoxpert_cli.errors import UsageError
from camoxpert_cli.targets import check_parent, check_targets

TITLE = "# camox benchmark"  # the first line of the page

# In the order in which they are compared by default: the last value of the setting first.
STRATEGIES = tuple(name for name in reversed(get_args(Strategy)) if name not in ("auto", "single"))


def check_counts(text: str) -> tuple[int, ...]:
    """Parse a list of GPU counts: `1,2` -> (1, 2). Raises UsageError."""
    try:
        return parse_counts(text)
    except ValueError as error:
        raise UsageError(f"--gpus is {text!r}, expected {error}", "camox benchmark --gpus 1,2") from error


def check_strategies(text: str) -> tuple[str, ...]:
    """Parse a list of strategies: `dp,ddp` -> ("dp", "ddp"). Raises UsageError."""
    return parse_names("--strategy", text, STRATEGIES, expected="one or both of dp and ddp", example="dp,ddp")


def check_out(path: Path, overwrite: bool) -> None:
    """Raise UsageError unless tables can be written to `path`; with `overwrite` they may replace earlier ones."""
    check_parent(path)
    check_targets([path], "--out benchmark.md", is_ours=_is_table, overwrite=overwrite)
    atomic.sweep(path)


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().strip() == TITLE.encode()
