"""Intersection over union, Dice coefficient and balanced error rate of what a map claims."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import Empty
from camoxpert_cli.metrics.ratio import ratio
from camoxpert_cli.metrics.thresholds import ConfusionCounts


def iou(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """|P and M| / |P or M| of the claimed pixels P and the mask M: (T,), in 0..1.

    Where both are empty 0, with `empty` "exact" 1.
    """
    return ratio(confusion.tp, confusion.tp + confusion.fp + confusion.fn, otherwise=float(empty == "exact"))


def dice(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """2 |P and M| / (|P| + |M|) of the claimed pixels P and the mask M: (T,), in 0..1.

    Where both are empty 0, with `empty` "exact" 1.
    """
    return ratio(2 * confusion.tp, 2 * confusion.tp + confusion.fp + confusion.fn, otherwise=float(empty == "exact"))


def ber(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """One minus the mean of the shares of the object and of the background that are told rightly: (T,), 0 is best.

    The share of what is absent counts as 0; with `empty` "exact" the other share counts alone.
    """
    if empty == "exact" and confusion.positives == 0:
        return confusion.fp / confusion.negatives
    if empty == "exact" and confusion.negatives == 0:
        return confusion.fn / confusion.positives
    return 1 - 0.5 * (
        ratio(confusion.tp, confusion.tp + confusion.fn) + ratio(confusion.tn, confusion.tn + confusion.fp)
    )
