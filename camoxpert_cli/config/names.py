"""Several names in one option, with commas between them."""

from __future__ import annotations

from collections.abc import Sequence

from camoxpert_cli.errors import UsageError, nearest


def parse_names(flag: str, text: str, known: Sequence[str], *, expected: str, example: str) -> tuple[str, ...]:
    """`a,b` -> ("a", "b"): each of `known`, once. Raises UsageError with what was `expected` and what to type.

    That is the known name nearest to the first that is not or, where none is near, `example`.
    """
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        guess = (nearest((unknown or names)[0], known) or [example])[0]
        raise UsageError(f"{flag} is {text!r}, expected {expected}", f"{flag} {guess}")
    return names
