from __future__ import annotations

import numpy as np
import pytest

from camoxpert_cli.metrics.overlap import ber, dice, iou
from camoxpert_cli.metrics.thresholds import every_threshold
from tests.unit.metrics.counting import confusion, histogram
from tests.unit.metrics.pairs import generated_pair


@pytest.mark.parametrize(
    ("rows", "expected_iou", "expected_dice", "expected_ber"),
    [
        (("BB", ".."), 1.0, 1.0, 0.0),
        (("PP", "MM"), 0.0, 0.0, 1.0),
        (("BBP", "M.."), 2 / 4, 4 / 6, 1 - (2 / 3 + 2 / 3) / 2),
        (("B....", "PPPPP", "....."), 1 / 6, 2 / 7, 1 - (1 + 9 / 14) / 2),
        (("M..",), 0.0, 0.0, 0.5),
    ],
)
def test_values(rows: tuple[str, ...], expected_iou: float, expected_dice: float, expected_ber: float) -> None:
    """Counted by hand: shared over united pixels, twice the shared over the sum of both, mean share told wrongly."""
    counted = confusion(*rows)

    assert iou(counted, "reference")[0] == pytest.approx(expected_iou, abs=1e-15)
    assert dice(counted, "reference")[0] == pytest.approx(expected_dice, abs=1e-15)
    assert ber(counted, "reference")[0] == pytest.approx(expected_ber, abs=1e-15)


@pytest.mark.parametrize("seed", range(10))
def test_relations(seed: int) -> None:
    """At every threshold Dice is 2 IoU / (1 + IoU), and not below IoU."""
    counted = every_threshold(histogram(*generated_pair(seed)))
    overlap, twice = iou(counted, "reference"), dice(counted, "reference")

    assert twice == pytest.approx(2 * overlap / (1 + overlap), abs=1e-15)
    assert (overlap <= twice).all()


def test_nothing_there_and_nothing_claimed() -> None:
    """An image without an object in which none is found: wrong to PySODMetrics, right to "exact"."""
    counted = confusion("...", "...")

    assert [measure(counted, "reference")[0] for measure in (iou, dice, ber)] == [0, 0, 0.5]
    assert [measure(counted, "exact")[0] for measure in (iou, dice, ber)] == [1, 1, 0]


def test_one_class_alone_exactly() -> None:
    """What is absent is not told wrongly: the error is that of the other class."""
    assert ber(confusion("P..."), "exact")[0] == 1 / 4
    assert ber(confusion("BMMM"), "exact")[0] == 3 / 4


def test_large_maps_are_counted_exactly() -> None:
    """Beyond 2^24 pixels, where float32 stops counting, one pixel more still shows."""
    grey, mask = np.full((4101, 4101), 255, np.uint8), np.ones((4101, 4101), bool)
    grey[0, 0] = 0
    counted = histogram(grey, mask)

    assert counted.foreground[[0, 255]].tolist() == [1, 4101**2 - 1]
    assert iou(every_threshold(counted), "reference")[1] == 1 - 1 / 4101**2
