"""E-measure: how well the predicted object aligns with the mask, per pixel and over the whole image.

D.-P. Fan, C. Gong, Y. Cao, B. Ren, M.-M. Cheng, A. Borji: Enhanced-alignment measure for binary foreground map
evaluation. IJCAI 2018.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import Empty
from camoxpert_cli.metrics.thresholds import ConfusionCounts

_EPS = float(np.spacing(1))


def e_measure(confusion: ConfusionCounts, empty: Empty) -> NDArray[np.float64]:
    """Compute the mean over pixels of the enhanced alignment (equations 2 to 5), (T,).

    As in the authors' code, the sum is divided by the number of pixels minus one, so a perfect prediction of N pixels
    scores N / (N - 1). Without an object, the sum is the number of pixels not predicted as object; without a
    background, the number of predicted pixels. With `empty` "exact", the score without an object is 1 if nothing is
    predicted and 0 otherwise, and without a background the predicted share.
    """
    predicted = confusion.predicted_positives
    pixels = confusion.positives + confusion.negatives
    if confusion.positives == 0:
        if empty == "exact":
            return (predicted == 0).astype(np.float64)
        aligned = confusion.tn.astype(np.float64)
    elif confusion.negatives == 0:
        if empty == "exact":
            return confusion.tp / pixels
        aligned = confusion.tp.astype(np.float64)
    else:
        predicted_share, object_share = predicted / pixels, confusion.positives / pixels
        aligned = np.zeros(len(predicted))
        for count, prediction, truth in (
            (confusion.tp, 1, 1),
            (confusion.fp, 1, 0),
            (confusion.fn, 0, 1),
            (confusion.tn, 0, 0),
        ):
            aligned += count * _enhanced_alignment(prediction - predicted_share, truth - object_share)
    return aligned / (pixels - 1 + _EPS)


def _enhanced_alignment(prediction: NDArray[np.float64], truth: float) -> NDArray[np.float64]:
    """Enhanced alignment of a pixel, from the deviations of prediction and ground truth from their image means."""
    alignment = 2 * (prediction * truth) / (prediction**2 + truth**2 + _EPS)
    return (alignment + 1) ** 2 / 4
