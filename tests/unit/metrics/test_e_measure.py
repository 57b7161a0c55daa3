from __future__ import annotations

import numpy as np
import pytest

from camoxpert_cli.metrics.e_measure import e_measure
from camoxpert_cli.metrics.thresholds import every_threshold, half
from tests.unit.metrics.counting import confusion, histogram
from tests.unit.metrics.pairs import generated_pair


@pytest.mark.parametrize("seed", range(20))
def test_is_the_mean_alignment_of_pixels(seed: int) -> None:
    """As the paper writes it, pixel by pixel: both maps less their means, their alignment, squared and summed."""
    grey, mask = generated_pair(seed)
    if mask.all() or not mask.any():
        mask[0, 0] = not mask[0, 0]
    counted = histogram(grey, mask)
    prediction = (grey > 127).astype(np.float64)
    a, b = prediction - prediction.mean(), mask - mask.mean()
    alignment = 2 * a * b / (a**2 + b**2)
    expected = ((1 + alignment) ** 2 / 4).sum() / (mask.size - 1)

    assert e_measure(half(counted), "reference")[0] == pytest.approx(expected, abs=1e-12)


def test_one_class_alone() -> None:
    """Without an object what is left out counts, without a background what is claimed: over N - 1, exactly over N."""
    assert e_measure(confusion("P..."), "reference")[0] == 3 / 3
    assert e_measure(confusion("P..."), "exact")[0] == 0
    assert e_measure(confusion("...."), "exact")[0] == 1
    assert e_measure(confusion("BBBM"), "reference")[0] == 3 / 3
    assert e_measure(confusion("BBBM"), "exact")[0] == 3 / 4


def test_opposite_map() -> None:
    """A map that claims all but the object aligns nowhere."""
    mask = generated_pair(1)[1]
    mask[0, 0], mask[-1, -1] = True, False
    grey = (~mask).astype(np.uint8) * 255

    assert e_measure(every_threshold(histogram(grey, mask)), "reference")[128] == pytest.approx(0, abs=1e-12)
