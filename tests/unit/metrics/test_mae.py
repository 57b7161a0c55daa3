from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.metrics.mae import mae
from tests.unit.metrics.counting import histogram


def test_value() -> None:
    """Counted by hand: the mean over pixels of how far the map is from the mask."""
    grey, mask = np.array([[0, 51], [102, 255]], np.uint8), np.array([[False, True], [True, False]])

    assert mae(histogram(grey, mask)) == pytest.approx((0 + 0.8 + 0.6 + 1) / 4, abs=1e-15)


def test_stretched() -> None:
    """The lowest level counts as 0 and the highest as 1."""
    grey, mask = np.array([[50, 100], [125, 150]], np.uint8), np.array([[False, True], [True, False]])

    assert mae(histogram(grey, mask, stretch=True)) == pytest.approx((0 + 0.5 + 0.25 + 1) / 4, abs=1e-15)


@given(st.integers(0, 255), st.booleans(), st.booleans())
def test_constant_map(level: int, filled: bool, stretch: bool) -> None:
    """A map of one value is off by that value, or by what it lacks to one; there is nothing to stretch."""
    grey, mask = np.full((3, 5), level, np.uint8), np.full((3, 5), filled)
    expected = 1 - level / 255 if filled else level / 255

    assert mae(histogram(grey, mask, stretch)) == pytest.approx(expected, abs=1e-15)
