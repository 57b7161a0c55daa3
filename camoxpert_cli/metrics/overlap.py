"""Intersection over union, Dice coefficient and balanced error rate of a thresholded prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import Empty
from camoxpert_cli.metrics.ratio import ratio
from camoxpert_cli.metrics.thresholds import ConfusionCounts


def iou(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """Compute |P and M| / |P or M| of the predicted pixels P and the mask M: (T,), in 0..1.

    If both are empty, 0, or 1 if `empty` is "exact".
    """
    return ratio(confusion.tp, confusion.tp + confusion.fp + confusion.fn, otherwise=float(empty == "exact"))


def dice(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """Compute 2 |P and M| / (|P| + |M|) of the predicted pixels P and the mask M: (T,), in 0..1.

    If both are empty, 0, or 1 if `empty` is "exact".
    """
    return ratio(2 * confusion.tp, 2 * confusion.tp + confusion.fp + confusion.fn, otherwise=float(empty == "exact"))


def ber(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """Compute one minus the mean of the correctly classified shares of object and background: (T,), 0 is best.

    The share of an absent class counts as 0; if `empty` is "exact", only the other share counts.
    """
    if empty == "exact" and confusion.positives == 0:
        return confusion.fp / confusion.negatives
    if empty == "exact" and confusion.negatives == 0:
        return confusion.fn / confusion.positives
    return 1 - 0.5 * (
        ratio(confusion.tp, confusion.tp + confusion.fn) + ratio(confusion.tn, confusion.tn + confusion.fp)
    )
