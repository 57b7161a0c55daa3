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
