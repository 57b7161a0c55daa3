"""Format lists for messages."""

from __future__ import annotations


def listed(numbers: tuple[int, ...]) -> str:
    """Join numbers as in prose: `0 and 2`."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
