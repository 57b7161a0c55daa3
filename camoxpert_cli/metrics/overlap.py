"""Intersection over union, Dice coefficient and balanced error rate of what a map claims."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import Empty
from camoxpert_cli.metrics.ratio import ratio
from camoxpert_cli.metrics.thresholds import Claims


def iou(claims: Claims, empty: Empty) -> NDArray[np.float64]:
    """|P and M| / |P or M| of the claimed pixels P and the mask M: (T,), in 0..1.

    Where both are empty 0, with `empty` "exact" 1.
    """
    return ratio(claims.tp, claims.tp + claims.fp + claims.fn, otherwise=float(empty == "exact"))


def dice(claims: Claims, empty: Empty) -> NDArray[np.float64]:
    """2 |P and M| / (|P| + |M|) of the claimed pixels P and the mask M: (T,), in 0..1.

    Where both are empty 0, with `empty` "exact" 1.
    """
    return ratio(2 * claims.tp, 2 * claims.tp + claims.fp + claims.fn, otherwise=float(empty == "exact"))


def ber(claims: Claims, empty: Empty) -> NDArray[np.float64]:
    """One minus the mean of the shares of the object and of the background that are told rightly: (T,), 0 is best.

    The share of what is absent counts as 0; with `empty` "exact" the other share counts alone.
    """
    if empty == "exact" and claims.objects == 0:
        return claims.fp / claims.backgrounds
    if empty == "exact" and claims.backgrounds == 0:
        return claims.fn / claims.objects
    return 1 - 0.5 * (ratio(claims.tp, claims.tp + claims.fn) + ratio(claims.tn, claims.tn + claims.fp))
