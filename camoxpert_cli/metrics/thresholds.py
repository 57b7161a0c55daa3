"""What a map claims to be the object: at every threshold, at one half, and at the threshold that adapts to the map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import LEVELS, Counts, Empty, Histogram, Map

# Sums of the same numbers in two orders differ by less: sums of millions of values below 1, in double precision.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ConfusionCounts:
    """Pixels claimed rightly (tp) and wrongly (fp), missed (fn) and rightly left out (tn), at some thresholds (T,)."""

    tp: Counts
    fp: Counts
    fn: Counts
    tn: Counts

    @property
    def predicted_positives(self) -> Counts:
        """Pixels claimed to be the object: (T,)."""
        return self.tp + self.fp

    @property
    def positives(self) -> int:
        """Pixels of the object: the same at every threshold."""
        return int(self.tp[0] + self.fn[0])

    @property
    def negatives(self) -> int:
        """Pixels of the background: the same at every threshold."""
        return int(self.fp[0] + self.tn[0])


def every_threshold(histogram: Histogram) -> ConfusionCounts:
    """Claims at 256 thresholds: a pixel is claimed at threshold k where its value times 255, rounded down, is >= k."""
    used = histogram.counts > 0
    steps = (histogram.values[used] * 255).astype(np.uint8)
    return _confusion_counts(
        histogram, _at_least(steps, histogram.foreground[used]), _at_least(steps, histogram.background[used])
    )


def half(histogram: Histogram) -> ConfusionCounts:
    """Claims at one threshold: values above one half."""
    return _confusion_counts_at(histogram, histogram.values > 0.5)


def adaptive(histogram: Histogram, grey: Map, empty: Empty) -> ConfusionCounts:
    """Claims at one threshold: values of at least twice the mean over the map, or of 1 where that is more (Achanta).

    In a map of zeros that is every pixel. With `empty` "exact", zeros claim nothing where the mask holds no object or
    no background.
    """
    predicted = histogram.values >= adaptive_threshold(histogram, grey)
    if empty == "exact" and histogram.objects in (0, histogram.pixels):
        predicted &= histogram.values > 0
    return _confusion_counts_at(histogram, predicted)


def adaptive_threshold(histogram: Histogram, grey: Map) -> float:
    """Twice the mean of the map, at most 1.

    Where a level of the map lies on the threshold, rounding decides on which side. Then the mean is taken over the
    pixels, as PySODMetrics takes it, and ties break alike.
    """
    counts = histogram.counts
    twice = 2 * float((counts * histogram.values).sum()) / histogram.pixels
    values = histogram.values[counts > 0]
    if twice < 1 + _ROUNDING and np.any(np.abs(values - twice) < _ROUNDING):
        twice = 2 * float(histogram.values[grey].mean())
    return min(twice, 1.0)


def _at_least(steps: Map, counts: Counts) -> Counts:
    by_step = np.bincount(steps, counts, LEVELS).astype(np.int64)
    return by_step[::-1].cumsum()[::-1]


def _confusion_counts_at(histogram: Histogram, predicted: NDArray[np.bool_]) -> ConfusionCounts:
    """The claims of one threshold, at which the pixels of these levels (256,) are claimed."""
    tp, fp = histogram.foreground[predicted].sum(), histogram.background[predicted].sum()
    return _confusion_counts(histogram, np.array([tp]), np.array([fp]))


def _confusion_counts(histogram: Histogram, tp: Counts, fp: Counts) -> ConfusionCounts:
    objects = histogram.objects
    return ConfusionCounts(tp, fp, objects - tp, histogram.pixels - objects - fp)
