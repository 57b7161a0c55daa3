"""Which pixels a prediction marks as object: at every threshold, at one half, and at the adaptive threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import LEVELS, Counts, Empty, Histogram, Prediction

# Upper bound on the difference between two summation orders: millions of values below 1, in double precision.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ConfusionCounts:
    """Numbers of true positive, false positive, false negative and true negative pixels at some thresholds (T,)."""

    tp: Counts
    fp: Counts
    fn: Counts
    tn: Counts

    @property
    def predicted_positives(self) -> Counts:
        """Number of pixels predicted as object: (T,)."""
        return self.tp + self.fp

    @property
    def positives(self) -> int:
        """Number of object pixels, the same at every threshold."""
        return int(self.tp[0] + self.fn[0])

    @property
    def negatives(self) -> int:
        """Number of background pixels, the same at every threshold."""
        return int(self.fp[0] + self.tn[0])


def every_threshold(histogram: Histogram) -> ConfusionCounts:
    """Count at 256 thresholds: at threshold k, pixels are predicted whose value times 255, rounded down, is >= k."""
    used = histogram.counts > 0
    steps = (histogram.values[used] * 255).astype(np.uint8)
    return _confusion_counts(
        histogram, _at_least(steps, histogram.foreground[used]), _at_least(steps, histogram.background[used])
    )


def half(histogram: Histogram) -> ConfusionCounts:
    """Count at one threshold, with values above one half predicted."""
    return _confusion_counts_at(histogram, histogram.values > 0.5)


def adaptive(histogram: Histogram, grey: Prediction, empty: Empty) -> ConfusionCounts:
    """Count at one threshold, with values of at least twice the prediction's mean, at most 1, predicted (Achanta).

    In an all-zero prediction, that is every pixel. With `empty` "exact", zeros are not predicted if the mask contains
    no object or no background.
    """
    predicted = histogram.values >= adaptive_threshold(histogram, grey)
    if empty == "exact" and histogram.objects in (0, histogram.pixels):
        predicted &= histogram.values > 0
    return _confusion_counts_at(histogram, predicted)


def adaptive_threshold(histogram: Histogram, grey: Prediction) -> float:
    """Compute twice the mean of the prediction, at most 1.

    If a level of the prediction is equal to the threshold, rounding decides the comparison. The mean is then computed
    over the pixels as in PySODMetrics, so that ties are resolved in the same way.
    """
    counts = histogram.counts
    twice = 2 * float((counts * histogram.values).sum()) / histogram.pixels
    values = histogram.values[counts > 0]
    if twice < 1 + _ROUNDING and np.any(np.abs(values - twice) < _ROUNDING):
        twice = 2 * float(histogram.values[grey].mean())
    return min(twice, 1.0)


def _at_least(steps: Prediction, counts: Counts) -> Counts:
    by_step = np.bincount(steps, counts, LEVELS).astype(np.int64)
    return by_step[::-1].cumsum()[::-1]


def _confusion_counts_at(histogram: Histogram, predicted: NDArray[np.bool_]) -> ConfusionCounts:
    """The counts at one threshold, at which the pixels of these levels (256,) are predicted."""
    tp, fp = histogram.foreground[predicted].sum(), histogram.background[predicted].sum()
    return _confusion_counts(histogram, np.array([tp]), np.array([fp]))


def _confusion_counts(histogram: Histogram, tp: Counts, fp: Counts) -> ConfusionCounts:
    objects = histogram.objects
    return ConfusionCounts(tp, fp, objects - tp, histogram.pixels - objects - fp)
