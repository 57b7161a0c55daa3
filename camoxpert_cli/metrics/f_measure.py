"""Precision, recall and F-measure of a thresholded prediction.

R. Achanta, S. Hemami, F. Estrada, S. Süsstrunk: Frequency-tuned salient region detection. CVPR 2009.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import Empty
from camoxpert_cli.metrics.ratio import ratio
from camoxpert_cli.metrics.thresholds import ConfusionCounts

# The square of beta, not beta: precision counts more than recall.
BETA_SQUARED = 0.3


def precision(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """Compute the share of predicted pixels that are object: (T,). 0 if nothing is predicted.

    With `empty` "exact", predicting nothing is correct if there is no object, and the result is 1.
    """
    return ratio(confusion.tp, confusion.predicted_positives, otherwise=_vacuous(confusion, empty))


def recall(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """Compute the share of the object's pixels that are predicted: (T,).

    Without an object, 0, or 1 if `empty` is "exact".
    """
    return ratio(confusion.tp, confusion.tp + confusion.fn, otherwise=_vacuous(confusion, empty))


def f_measure(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """Compute (1 + b) P R / (b P + R) from precision P and recall R with b = BETA_SQUARED: (T,), in 0..1 (equation 6).

    0 if both are 0.
    """
    p, r = precision(confusion, empty), recall(confusion, empty)
    return ratio((1 + BETA_SQUARED) * p * r, BETA_SQUARED * p + r)


def _vacuous(confusion: ConfusionCounts, empty: Empty) -> float:
    return 1.0 if empty == "exact" and confusion.positives == 0 else 0.0
