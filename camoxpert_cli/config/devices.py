"""Numbers of GPUs as people write them."""

from __future__ import annotations


def parse_devices(text: str) -> tuple[int, ...]:
    """`0,2` -> (0, 2). Raises ValueError with what was expected."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ValueError("different numbers of GPUs, such as 0,2")
    return numbers


def parse_counts(text: str) -> tuple[int, ...]:
    """`1,2` -> (1, 2): how many GPUs, several times. Raises ValueError with what was expected."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or not 1 <= min(counts) <= max(counts) <= 1024 or len(set(counts)) < len(counts):
        raise ValueError("different counts above zero, such as 1,2")
    return counts
