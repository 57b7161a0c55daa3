from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.config.parse import Sessions, parse_sessions


@given(st.integers(1, 9999), st.integers(1, 10**7))
def test_what_is_written_is_read_back(count: int, seconds: int) -> None:
    """Any number of sessions of any length survives the way to text and back."""
    sessions = Sessions(count, seconds)

    assert parse_sessions(str(sessions)) == sessions


@pytest.mark.parametrize(
    ("text", "count", "seconds"), [("9h", 1, 32400), ("3x12h", 3, 43200), ("1x90m", 1, 5400), (" 2x30s ", 2, 30)]
)
def test_sessions(text: str, count: int, seconds: int) -> None:
    """A duration alone is one session."""
    assert parse_sessions(text) == Sessions(count, seconds)


@pytest.mark.parametrize(
    "text", ["", "3x", "x9h", "0x9h", "3X9h", "3 x 9h", "3x0s", "3x9", "-1x9h", "3x3x9h", "10000x9h"]
)
def test_what_is_none(text: str) -> None:
    """The refusal shows both forms."""
    with pytest.raises(ValueError, match=r"a duration such as 9h, or a number of sessions and .* such as 3x12h"):
        parse_sessions(text)
