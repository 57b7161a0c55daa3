from __future__ import annotations

import numpy as np
import pytest

from camoxpert_cli.metrics.thresholds import adaptive, adaptive_threshold, every_threshold, half
from tests.unit.metrics.counting import histogram
from tests.unit.metrics.pairs import generated_pair


@pytest.mark.parametrize("stretch", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_confusion_counts_are_those_of_the_map(seed: int, stretch: bool) -> None:
    """Counts from the histogram are counts of the map's pixels, at every threshold, at half and at the adaptive one."""
    grey, mask = generated_pair(seed)
    counted = histogram(grey, mask, stretch)
    map_ = counted.values[grey]
    steps = (map_ * 255).astype(np.uint8)
    predicted = [steps >= k for k in range(256)] + [map_ > 0.5, map_ >= min(2 * map_.mean(), 1)]
    found = [every_threshold(counted), half(counted), adaptive(counted, grey, "reference")]

    assert [count for each in found for count in each.tp] == [(each & mask).sum() for each in predicted]
    assert [count for each in found for count in each.fp] == [(each & ~mask).sum() for each in predicted]
    assert [count for each in found for count in each.fn] == [(~each & mask).sum() for each in predicted]
    assert [count for each in found for count in each.tn] == [(~each & ~mask).sum() for each in predicted]


@pytest.mark.parametrize("level", range(1, 128))
def test_adaptive_threshold_on_a_level(level: int) -> None:
    """Where twice the mean is a level of the map, the threshold is that of numpy's mean to the last bit."""
    grey = np.zeros((33, 62), np.uint8)
    grey[:, ::2] = level
    counted = histogram(grey, grey > 0)

    assert adaptive_threshold(counted, grey) == 2 * (grey / 255).mean()


def test_one_half_is_not_claimed() -> None:
    """Half way between the lowest and the highest level, as of three levels, is no claim."""
    grey = np.array([[0, 1, 2]], np.uint8)
    counted = histogram(grey, grey > 0, stretch=True)

    assert counted.values[1] == 0.5
    assert half(counted).tp.tolist() == half(counted).fn.tolist() == [1]


def test_adaptive_threshold_is_at_most_one() -> None:
    """A map of ones claims all of itself."""
    grey = np.full((4, 4), 255, np.uint8)
    counted = histogram(grey, grey > 0)

    assert adaptive_threshold(counted, grey) == 1
    assert adaptive(counted, grey, "reference").tp == [16]
