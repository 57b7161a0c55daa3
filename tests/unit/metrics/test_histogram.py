from __future__ import annotations

import numpy as np
import pytest

from camoxpert_cli.metrics.histogram import count_levels, histogram_of, object_box
from tests.unit.metrics.pairs import generated_pair


@pytest.mark.parametrize("seed", range(20))
def test_counts(seed: int) -> None:
    """As counted by numpy, of the whole map and of the object."""
    grey, mask = generated_pair(seed)

    assert count_levels(grey).tolist() == np.bincount(grey.ravel(), minlength=256).tolist()
    assert count_levels(grey, mask).tolist() == np.bincount(grey[mask], minlength=256).tolist()


def test_counts_of_no_pixels() -> None:
    """A part of an image may be empty."""
    assert count_levels(np.zeros((0, 5), np.uint8), np.zeros((0, 5), bool)).tolist() == [0] * 256
    assert count_levels(np.zeros((5, 0), np.uint8)).tolist() == [0] * 256


def test_large_maps_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part holds more pixels than the counts of OpenCV can tell."""
    grey, mask = generated_pair(0)
    whole, inside = count_levels(grey), count_levels(grey, mask)
    monkeypatch.setattr("camoxpert_cli.metrics.histogram._EXACT_IN_FLOAT32", 3 * grey.shape[1] + 1)

    assert len(grey) > 6
    assert count_levels(grey).tolist() == whole.tolist()
    assert count_levels(grey, mask).tolist() == inside.tolist()


@pytest.mark.parametrize("stretch", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_values_to_the_last_bit(seed: int, stretch: bool) -> None:
    """Values of levels are those that arithmetic on the whole map gives in PySODMetrics' order."""
    grey, mask = generated_pair(seed)
    map_ = grey / 255
    if stretch and map_.min() < map_.max():
        map_ = (map_ - map_.min()) / (map_.max() - map_.min())
    inside = count_levels(grey, mask)
    values = histogram_of(inside, count_levels(grey) - inside, stretch).values

    assert np.array_equal(values[grey], map_)


def test_object_box() -> None:
    """The rows and columns from the first to the last pixel of the object."""
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = mask[4, 6] = True

    assert object_box(mask) == (slice(2, 5), slice(3, 7))
    assert mask[object_box(np.zeros((6, 8), bool))].size == 0


def test_counts_that_float32_cannot_hold() -> None:
    """Every pixel counts, of a map that has more of one level than OpenCV's float32 can tell apart."""
    count = 4099 * 4095

    assert int(np.float32(count)) != count
    assert count_levels(np.zeros((4099, 4095), np.uint8))[0] == count
