from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.config.parse import Interval, format_duration, parse_devices, parse_duration, parse_interval


@given(st.integers(min_value=1, max_value=10**7))
def test_what_is_formatted_is_read_back(seconds: int) -> None:
    """Every time above zero survives the way to text and back."""
    text = format_duration(seconds)

    assert parse_duration(text) == seconds
    assert parse_interval(text) == Interval(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(30, "30s"), (600, "10m"), (5400, "1h30m"), (43200, "12h"), (3601, "1h1s"), (59.6, "1m"), (0.4, "0s")],
)
def test_times_are_written_in_their_shortest_form(seconds: float, text: str) -> None:
    """Parts that are zero are left out, and fractions are rounded to the second."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("11h30m", 41400), (" 12h ", 43200)])
def test_times_need_not_be_in_shortest_form(text: str, seconds: int) -> None:
    """Parts above 59 and spaces around are understood."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "0h0m", "12", "12 h", "30m1h", "1.5h", "-1h", "1:30", "soon"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """The refusal says what a time looks like."""
    with pytest.raises(ValueError, match="a duration above zero, such as 30s, 10m or 11h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["87601h", "1h999999999s", "999999999h"])
def test_what_no_clock_counts_is_refused(text: str) -> None:
    """A limit is at most ten years; more digits are no time at all."""
    with pytest.raises(ValueError, match=r"^a duration of at most ten years$"):
        parse_duration(text)
    for digits in (10, 400, 5000):
        with pytest.raises(ValueError, match=r"^a duration above zero, such as"):
            parse_duration(f"{'9' * digits}h")
    for way in (parse_interval, parse_devices):
        with pytest.raises(ValueError, match="such as"):
            way("9" * 5000)
    assert parse_duration("87600h") == 87600 * 3600


@given(st.integers(min_value=1, max_value=10**9))
def test_a_bare_number_is_an_interval_of_steps(steps: int) -> None:
    """A number without unit counts optimizer steps, and then there are no seconds."""
    assert parse_interval(str(steps)) == Interval(seconds=None, steps=steps)


@pytest.mark.parametrize("text", ["", "0", "0m", "-5", "1.5", "1:30", "often"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    """The refusal names both forms, time and steps."""
    with pytest.raises(
        ValueError, match="a duration such as 30s, 10m or 1h, or a number of optimizer steps above zero"
    ):
        parse_interval(text)


def test_when_an_interval_is_over() -> None:
    """A time is over once it has passed, whatever the steps; steps are over at each of their multiples."""
    half_minute, ten_steps = Interval(seconds=30), Interval(steps=10)

    assert [half_minute.is_due(*passed) for passed in ((29.9, 30), (30, 1), (31, 1))] == [False, True, True]
    assert [ten_steps.is_due(1000, steps) for steps in (1, 9, 10, 11, 20)] == [False, False, True, False, True]
