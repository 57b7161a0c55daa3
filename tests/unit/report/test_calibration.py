from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.report.calibration import calibration

NOTHING = np.zeros(256, np.int64)


def pixels(**levels: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """So many pixels of a grey level: `pixels(g0=3, g255=1)`."""
    counts = NOTHING.copy()
    for level, count in levels.items():
        counts[int(level[1:])] = count
    return counts


def test_right_and_sure() -> None:
    """Object at 1 and background at 0 are perfectly calibrated."""
    found = calibration(pixels(g255=40), pixels(g0=60))

    assert found is not None
    assert (found.predicted.tolist(), found.observed.tolist(), found.error) == ([0, 1], [0, 1], 0)


def test_wrong_and_sure() -> None:
    """The other way round the error is as large as it can be."""
    found = calibration(pixels(g0=60), pixels(g255=40))

    assert found is not None
    assert (found.observed.tolist(), found.error) == ([1, 0], 1)


def test_by_hand() -> None:
    """A bin of 30 pixels at 0.2, half of them object, beside 70 of background at 0: 0.3 * |0.5 - 0.2|."""
    found = calibration(pixels(g51=15), pixels(g51=15, g0=70))

    assert found is not None
    assert found.error == pytest.approx(0.09, abs=1e-12)


def test_no_pixels() -> None:
    """Of nothing there is no calibration."""
    assert calibration(NOTHING, NOTHING) is None


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 255), st.booleans()), min_size=1, max_size=60))
def test_as_pixel_by_pixel(each: list[tuple[int, bool]]) -> None:
    """The histograms give what a loop over bins of pixels gives."""
    foreground, background = NOTHING.copy(), NOTHING.copy()
    for level, is_object in each:
        (foreground if is_object else background)[level] += 1
    found = calibration(foreground, background)
    expected = 0.0
    for first in range(0, 256, 16):
        members = [(level / 255, is_object) for level, is_object in each if first <= level < first + 16]
        expected += abs(sum(value - is_object for value, is_object in members)) / len(each)

    assert found is not None
    # Sums of at most 60 numbers of 0..1 in another order: 60 roundings of 1e-16.
    assert found.error == pytest.approx(expected, abs=1e-14)
