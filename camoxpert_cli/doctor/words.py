"""How sizes and errors are written down."""

from __future__ import annotations

_LONGEST = 200


def one_line(error: object) -> str:
    """The first line of an error: CUDA's go on with paragraphs on how to debug them."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= _LONGEST else f"{lines[0][:_LONGEST]}…"


def in_words(size: float) -> str:
    """Bytes as people say them."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def count(number: int, thing: str) -> str:
    """`1 GPU`, `2 GPUs`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def listed(numbers: tuple[int, ...]) -> str:
    """`0 and 2`."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
