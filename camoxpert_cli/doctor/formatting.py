"""Format counts and lists for messages."""

from __future__ import annotations


def count(number: int, thing: str) -> str:
    """Return a count with its noun: `1 GPU`, `2 GPUs`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def listed(numbers: tuple[int, ...]) -> str:
    """Join numbers as in prose: `0 and 2`."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
