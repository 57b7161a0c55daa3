"""Weighted F-measure: adjacent errors on the object count less, errors far from the object count more.

R. Margolin, L. Zelnik-Manor, A. Tal: How to evaluate foreground maps? CVPR 2014.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import Box, Empty, Histogram, Mask, Prediction

# The Gaussian that smooths errors on the object: 7×7 pixels.
SIGMA = 5.0
RADIUS = 3
# The weight of a background error rises from 1 at the object towards 2; every so many pixels halve the distance to 2.
HALF_WAY = 5.0

# Beyond this distance the weight differs from 2 by at most 2^-22.
_FAR = 110
# No pixel within RADIUS rows and columns of the object is farther away from it.
_NEAR_SQUARED = 2 * RADIUS**2
_EPS = float(np.spacing(1))


def weighted_f(grey: Prediction, mask: Mask, box: Box, histogram: Histogram, empty: Empty) -> float:
    """Compute 2 P R / (P + R) from weighted precision and recall (equations 7 to 9), in 0..1; `box` bounds the object.

    Without an object, 0; with `empty` "exact", 1 if the whole prediction is 0.
    """
    objects, values = histogram.objects, histogram.values
    if objects == 0:
        return float(empty == "exact" and not np.any(histogram.counts[values > 0]))
    around = _grown(box, _FAR, mask.shape)
    is_background = (~mask[around]).view(np.uint8)
    distance = _distances(is_background)
    close = _grown(box, RADIUS, mask.shape)
    missed = _missed(grey[close], mask[close], distance[_within(close, around)], values)
    nearness = cv2.exp(distance * np.float32(-np.log(2) / HALF_WAY))
    near = cv2.multiply(cv2.LUT(grey[around], values.astype(np.float32)), nearness)
    wrong = 2 * float((histogram.background * values).sum())
    wrong -= cv2.mean(near, is_background)[0] * np.count_nonzero(is_background)
    right = objects - missed
    recall, precision = right / objects, right / (right + wrong + _EPS)
    return float(2 * recall * precision / (recall + precision + _EPS))


def _distances(is_background: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The distance from each pixel to the nearest zero pixel, in pixels.

    The last bit of OpenCV's result depends on its memory alignment, but scores must not: each distance is recomputed
    from its square, which is an integer.
    """
    distance = cv2.distanceTransform(is_background, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    squared = np.multiply(distance, distance, out=np.asarray(distance, dtype=np.float32))
    return np.sqrt(np.rint(squared, out=squared), out=squared)


def _missed(grey: Prediction, mask: Mask, distance: NDArray[Any], values: NDArray[np.float64]) -> float:
    """The sum over the object of each pixel's error or its smoothed error, whichever is smaller.

    A pixel around the object has the error of the nearest object pixel; outside of the image, the error is zero.
    """
    is_object = _bordered(mask.view(np.uint8)).view(np.bool_)
    error = _bordered(cv2.LUT(grey, (1 - values).astype(np.float32)) * mask)
    distance = _bordered(distance)
    place = np.flatnonzero((distance > 0) & (distance < np.sqrt(_NEAR_SQUARED + 0.5)))
    squared = np.rint(distance.reshape(-1)[place] ** 2).astype(np.intp)
    error.reshape(-1)[place] = error.reshape(-1)[_nearest(place, squared, is_object)]
    kernel = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    smooth = cv2.sepFilter2D(error, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    return float(np.minimum(error, smooth)[is_object].sum(dtype=np.float64))


def _bordered(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pad with zeros: the object pixel nearest to one within RADIUS may be one pixel farther away in one direction."""
    border = RADIUS + 1
    return cv2.copyMakeBorder(pixels, border, border, border, border, cv2.BORDER_CONSTANT, value=0)


def _nearest(place: NDArray[np.intp], squared: NDArray[np.intp], is_object: Mask) -> NDArray[np.intp]:
    """The position of the object pixel nearest to each position, whose squared distance is given.

    Positions are flat indices into `is_object`. Among several at the same distance, the one in the leftmost column and
    there in the uppermost row is returned, as in `scipy.ndimage.distance_transform_edt`.
    """
    steps = _STEPS @ (is_object.shape[1], 1)
    nearest = place.copy()
    for step in steps.T[::-1]:
        candidate = place + step[squared]
        np.copyto(nearest, candidate, where=is_object.reshape(-1)[candidate])
    return nearest


def _steps_by_distance() -> NDArray[np.intp]:
    """Row and column offsets by squared distance, in order of preference: (distances, 8, 2), padded with 0."""
    reach = range(-RADIUS - 1, RADIUS + 2)
    steps = np.zeros((_NEAR_SQUARED + 1, 8, 2), np.intp)
    filled = [0] * len(steps)
    for column, row in product(reach, reach):
        squared = row**2 + column**2
        if 0 < squared <= _NEAR_SQUARED:
            steps[squared, filled[squared]] = row, column
            filled[squared] += 1
    return steps


_STEPS = _steps_by_distance()


def _grown(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    """A box with a margin on each side, within an image of this shape."""
    rows, columns = (
        slice(max(0, span.start - margin), min(size, span.stop + margin)) for span, size in zip(box, shape, strict=True)
    )
    return rows, columns


def _within(inner: Box, outer: Box) -> Box:
    """The coordinates of a box relative to another box that contains it."""
    rows, columns = (
        slice(each.start - frame.start, each.stop - frame.start) for each, frame in zip(inner, outer, strict=True)
    )
    return rows, columns
