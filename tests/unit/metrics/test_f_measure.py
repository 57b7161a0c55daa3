from __future__ import annotations

import numpy as np
import pytest

from camoxpert_cli.metrics.f_measure import f_measure, precision, recall
from camoxpert_cli.metrics.histogram import Empty
from camoxpert_cli.metrics.thresholds import ConfusionCounts
from tests.unit.metrics.counting import confusion


def test_values() -> None:
    """Two of three claimed pixels are right, two of four of the object are found; 0.3 is the square of beta."""
    counted = confusion("BBP.", "MM..")
    rightly, found = precision(counted, "reference"), recall(counted, "reference")

    assert (rightly[0], found[0]) == (2 / 3, 2 / 4)
    assert f_measure(counted, "reference")[0] == pytest.approx(1.3 * (2 / 3) * 0.5 / (0.3 * 2 / 3 + 0.5), abs=1e-15)


def test_nothing_claimed() -> None:
    """Where there is an object, claiming nothing scores 0, whatever is said of empty masks."""
    empties: tuple[Empty, ...] = ("reference", "exact")
    for empty in empties:
        counted = confusion("MM..")

        assert [measure(counted, empty)[0] for measure in (precision, recall, f_measure)] == [0, 0, 0]


def test_f_lies_between() -> None:
    """It is a weighted harmonic mean: between precision and recall, nearer to precision."""
    counted = ConfusionCounts(*np.random.default_rng(0).integers(1, 1000, (4, 1000)))
    rightly, found, measured = (measure(counted, "reference") for measure in (precision, recall, f_measure))

    assert (np.minimum(rightly, found) <= measured + 1e-15).all()
    assert (measured <= np.maximum(rightly, found) + 1e-15).all()
    assert (np.abs(1 / measured - 1 / rightly) <= np.abs(1 / measured - 1 / found) + 1e-9).all()
