"""How errors, counts and lists are written down."""

from __future__ import annotations

from camoxpert_cli.errors import first_line

_LONGEST = 200


def one_line(error: object) -> str:
    """The first line of an error, cut where it is long: CUDA's go on with paragraphs on how to debug them."""
    line = first_line(error)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def count(number: int, thing: str) -> str:
    """`1 GPU`, `2 GPUs`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def listed(numbers: tuple[int, ...]) -> str:
    """`0 and 2`."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
