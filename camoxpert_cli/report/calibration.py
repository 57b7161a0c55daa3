"""Measures whether a prediction's gray levels are calibrated probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.report.content import LEVELS

BINS = 16


@dataclass(frozen=True)
class Calibration:
    """Mean prediction and fraction of object pixels in each nonempty bin, float64 (n,) in 0..1.

    `error` is the expected calibration error over all pixels.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    error: float


def calibration(foreground: NDArray[np.int64], background: NDArray[np.int64]) -> Calibration | None:
    """Compute the calibration from counts of object and background pixels per gray level, int64 (256,) each.

    Returns None if there are no pixels. There are 16 bins of 16 levels; the error is the mean of |observed - predicted|
    over pixels (Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3, with the probability of
    "object" as confidence).
    """
    total = foreground + background
    pixels = total.reshape(BINS, -1).sum(axis=1)
    held = pixels > 0
    if not held.any():
        return None
    values = np.arange(LEVELS) / (LEVELS - 1)
    predicted = (total * values).reshape(BINS, -1).sum(axis=1)[held] / pixels[held]
    observed = foreground.reshape(BINS, -1).sum(axis=1)[held] / pixels[held]
    error = float(np.average(np.abs(observed - predicted), weights=pixels[held]))
    return Calibration(predicted, observed, error)
