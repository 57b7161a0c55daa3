from __future__ import annotations

import pytest

from camoxpert_cli.errors import first_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("too many\nfor this"), "too many"),
        (ValueError("\n  late"), "late"),
        (KeyError(), "KeyError"),
        ("a reason", "a reason"),
    ],
)
def test_first_line(error: object, expected: str) -> None:
    """The first line that says something, and the class of an error without a word."""
    assert first_line(error) == expected
