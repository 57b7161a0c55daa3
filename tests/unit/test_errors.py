from __future__ import annotations

import pytest

from camoxpert_cli.errors import first_line, shown


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


def test_shown_is_short() -> None:
    """What fits is shown as it is; the rest with its beginning and its end, however often it refers to itself."""
    value: object = ["x"] * 9
    for _ in range(12):
        value = [value] * 9

    assert shown(["a", 1]) == "['a', 1]"
    assert shown("x" * 150) == repr("x" * 150)
    assert 100 < len(shown("x" * 10**6)) <= 200
    assert shown(10**5000) == "int of very many digits"
    assert len(shown(value)) < 2500
