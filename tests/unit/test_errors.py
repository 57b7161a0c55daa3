from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camoxpert_cli.errors import first_line, one_line, shown


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("too many\nfor this"), "too many"),
        (ValueError("\n  late"), "late"),
        (KeyError(), "KeyError"),
        ("Error(s) in loading state_dict for ResNet:\n\tsize mismatch for fc:\n\t2 and 3.\nmore", None),
        ("announced:\n", "announced:"),
        ("a reason", "a reason"),
    ],
)
def test_first_line(error: object, expected: str) -> None:
    """The first line that says something, and the class of an error without a word."""
    whole = "Error(s) in loading state_dict for ResNet: size mismatch for fc: 2 and 3."
    assert first_line(error) == (expected or whole)


@given(st.lists(st.integers(1, 40).map("x".__mul__), min_size=1, max_size=30))
def test_one_line(words: list[str]) -> None:
    """A long line ends with a whole word of it, and a sign that it goes on; a short one is as it was."""
    line = " ".join(words)
    found = one_line(line)

    assert len(found) <= 202
    if len(line) > 200:
        assert found.endswith(" …")
        assert found.removesuffix(" …").split(" ") == words[: found.count(" ")]
    else:
        assert found == line


def test_one_long_word() -> None:
    """There is no other place to cut it."""
    assert one_line("x" * 300) == f"{'x' * 200} …"


def test_shown_is_short() -> None:
    """What fits is shown as it is; the rest with its beginning and its end, however often it refers to itself."""
    value: object = ["x"] * 9
    for _ in range(12):
        value = [value] * 9

    assert shown(["a", 1]) == "['a', 1]"
    assert shown("x" * 150) == repr("x" * 150)
    assert 100 < len(shown("x" * 10**6)) <= 200
    assert shown(10**5000) == "int with thousands of digits"
    assert 100 < len(shown(value)) <= 202
    assert shown({"a": [torch.zeros(1).expand(10**12), nn.Parameter(torch.ones(2, 3)), torch.ones(())]}) == (
        "{'a': [a tensor of 1000000000000, a tensor of 2x3, a tensor of one number]}"
    )
