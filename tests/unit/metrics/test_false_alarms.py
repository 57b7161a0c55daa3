"""False alarms in images without an object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.metrics.false_alarms import FalseAlarms, area_of, describe, false_alarms, predicted_area
from camoxpert_cli.metrics.histogram import count_levels


def test_predicted_area() -> None:
    """Levels above one half count, from 128 on; the prediction is not stretched, as for other metrics."""
    grey = np.array([[0, 127, 128, 255], [3, 4, 5, 200]], np.uint8)

    assert predicted_area(grey) == 3 / 8
    assert predicted_area(np.minimum(grey, 127)) == 0
    assert area_of(count_levels(grey)) == 3 / 8


def test_one_pixel_is_a_false_alarm() -> None:
    """The rate counts images in which anything is predicted, however little."""
    found = false_alarms([0.0, 0.001, 0.5, 0.0])

    assert (found.images, found.rate) == (4, 0.5)
    assert found.area == pytest.approx(0.12525)


@given(st.lists(st.floats(0, 1), min_size=1), st.randoms())
def test_order_does_not_matter(areas: list[float], random: object) -> None:
    """Ranks may score images in any order; the result is the same to the bit."""
    found = false_alarms(areas)

    assert found == false_alarms(sorted(areas)) == FalseAlarms.from_json(found.to_json())
    assert 0 <= found.rate <= 1
    assert 0 <= found.area <= 1


def test_in_words() -> None:
    assert describe(FalseAlarms(40, 0.25, 0.0123)) == (
        "40 images without an object: false alarms in 25.0%, with 1.23% of all pixels predicted above 0.5"
    )
