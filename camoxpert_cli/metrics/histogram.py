"""Counts of each level of an 8-bit prediction on object and background: all that most metrics need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS = 256

# How to score masks without an object or without a background: see `score_image`.
Empty: TypeAlias = Literal["reference", "exact"]
Prediction: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]
Counts: TypeAlias = NDArray[np.int64]
Box: TypeAlias = tuple[slice, slice]

# OpenCV returns counts as float32, which represents every integer up to here exactly.
_EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True)
class Histogram:
    """Pixel counts (256,) by level on the object and on the background, and the value in 0..1 of each level.

    The values of levels that do not occur are meaningless and may be outside of 0..1.
    """

    foreground: Counts
    background: Counts
    values: NDArray[np.float64]

    @cached_property
    def counts(self) -> Counts:
        """Number of pixels of each level, object and background together: (256,)."""
        return self.foreground + self.background

    @cached_property
    def objects(self) -> int:
        """Number of object pixels."""
        return int(self.foreground.sum())

    @cached_property
    def pixels(self) -> int:
        """Number of pixels of the prediction."""
        return int(self.counts.sum())


def histogram_of(foreground: Counts, background: Counts, stretch: bool) -> Histogram:
    """Build the histogram from counts (256,) of raw levels.

    With `stretch`, values range from 0 at the lowest to 1 at the highest level that occurs, unless there is only one:
    MATLAB's `mapminmax`, in the order of operations that makes the values bitwise identical to PySODMetrics'.
    """
    values = np.arange(LEVELS) / 255
    used = np.flatnonzero(foreground + background)
    lowest, highest = values[used[0]], values[used[-1]]
    if stretch and lowest < highest:
        values = (values - lowest) / (highest - lowest)
    return Histogram(foreground, background, values)


def count_levels(grey: Prediction, mask: Mask | None = None) -> Counts:
    """Count the pixels (256,) of each level in a prediction (H, W), which may be empty, or where `mask` is true."""
    where = None
    if mask is not None:
        box = object_box(mask)
        grey, where = grey[box], mask[box].view(np.uint8)
    total = np.zeros(LEVELS, np.int64)
    if grey.size == 0:
        return total
    rows = max(1, _EXACT_IN_FLOAT32 // grey.shape[1])
    for top in range(0, len(grey), rows):
        part = None if where is None else where[top : top + rows]
        total += cv2.calcHist([grey[top : top + rows]], [0], part, [LEVELS], [0, LEVELS]).ravel().astype(np.int64)
    return total


def object_box(mask: Mask) -> Box:
    """Return the rows and columns that a mask's true pixels span; empty slices if there are none."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(top, top + height), slice(left, left + width)
