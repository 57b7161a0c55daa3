"""S-measure: the structural similarity of a prediction and a mask, object-aware and region-aware.

D.-P. Fan, M.-M. Cheng, Y. Liu, T. Li, A. Borji: Structure-measure: a new way to evaluate foreground maps. ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import Box, Counts, Histogram, Mask, Prediction, count_levels

ALPHA = 0.5
_EPS = float(np.spacing(1))


@dataclass(frozen=True)
class Region:
    """A part of an image, possibly empty, and counts (256,) of the prediction's levels on object and background."""

    box: Box
    foreground: Counts
    background: Counts


def count_regions(grey: Prediction, mask: Mask, box: Box) -> list[Region]:
    """Divide a prediction (H, W) at the object's center into four parts and count the levels of each.

    The center's row and column belong to the upper and left parts. `box` contains the object. Without an object, the
    whole prediction is one region.
    """
    height, width = mask.shape
    inside = mask[box].view(np.uint8)
    if inside.size == 0:
        counts = count_levels(grey)
        return [Region((slice(0, height), slice(0, width)), np.zeros_like(counts), counts)]
    y = _centre(box[0], cv2.reduce(inside, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()) + 1
    x = _centre(box[1], cv2.reduce(inside, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()) + 1
    regions = []
    for rows, columns in product((slice(0, y), slice(y, height)), (slice(0, x), slice(x, width))):
        foreground = count_levels(grey[rows, columns], mask[rows, columns])
        regions.append(Region((rows, columns), foreground, count_levels(grey[rows, columns]) - foreground))
    return regions


def s_measure(histogram: Histogram, regions: Sequence[Region], grey: Prediction) -> float:
    """Compute ALPHA times the object-aware plus 1 - ALPHA times the region-aware similarity (equation 8), in 0..1.

    A region without pixels has no weight; PySODMetrics returns NaN there. Without an object, the score is one minus the
    mean of the prediction; without a background, the mean.
    """
    pixels, objects, values = histogram.pixels, histogram.objects, histogram.values
    if objects in (0, pixels):
        mean = float((histogram.counts * values).sum()) / pixels
        return 1 - mean if objects == 0 else mean
    share = objects / pixels
    object_aware = share * _object_similarity(histogram.foreground, values)
    object_aware += (1 - share) * _object_similarity(histogram.background, 1 - values)
    region_aware = sum(
        (region.foreground.sum() + region.background.sum()) / pixels * _region_similarity(region, values, grey)
        for region in regions
    )
    return max(0.0, float(ALPHA * object_aware + (1 - ALPHA) * region_aware))


def _centre(span: slice, counts: NDArray[Any]) -> int:
    """The mean of a span's rows or columns weighted by `counts`, rounded to the nearest, halves to even."""
    return round(int(np.arange(span.start, span.stop) @ counts.astype(np.int64)) / int(counts.sum()))


def _object_similarity(counts: Counts, values: NDArray[np.float64]) -> float:
    """High if values are close to 1 and uniform (equations 4 and 5)."""
    number = int(counts.sum())
    mean = float((counts * values).sum()) / number
    deviation = sqrt(float((counts * (values - mean) ** 2).sum()) / (number - 1)) if number > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + deviation + _EPS)


def _region_similarity(region: Region, values: NDArray[np.float64], grey: Prediction) -> float:
    """Structural similarity of a region of the prediction and of the mask (equations 1 and 2)."""
    counts = region.foreground + region.background
    objects, number = int(region.foreground.sum()), int(counts.sum())
    if number == 0:
        return 0.0
    if objects in (0, number):
        return float(_is_flat(region.box, counts, values, grey))
    x, y = float((counts * values).sum()) / number, objects / number
    freedom = number - 1 + _EPS
    variances = float((counts * (values - x) ** 2).sum()) + objects * (1 - y) ** 2 + (number - objects) * y**2
    covariance = float(((region.foreground * (1 - y) - region.background * y) * (values - x)).sum())
    alpha = 4 * x * y * covariance / freedom
    beta = (x**2 + y**2) * variances / freedom
    return alpha / (beta + _EPS)


def _is_flat(box: Box, counts: Counts, values: NDArray[np.float64], grey: Prediction) -> bool:
    """Whether PySODMetrics computes zero variance for a region of the prediction.

    The mean over many pixels of one value may differ from it in the last bit, and then the variance is not zero; the
    mean is therefore computed in the same order.
    """
    levels = np.flatnonzero(counts)
    if len(levels) > 1:
        return False
    value = values[levels[0]]
    return bool(value in (0, 1) or values[grey][box].mean() == value)
