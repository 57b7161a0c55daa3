"""The scores of a set of images: every image has the same weight, regardless of its size and of the batching."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.metrics.measures import MEASURES

_MAXIMA = {each.name: each.maximum_of for each in MEASURES if each.maximum_of}


@dataclass(frozen=True)
class SetScores(Scores):
    """Means of metrics and curves over `images` images.

    A maximum is that of the mean curve, at the single threshold that is best for the whole set, as in PySODMetrics and
    papers; it is at most the mean of the images' individual maxima.
    """

    images: int = field(kw_only=True)


def mean_scores(scores: Sequence[Scores]) -> SetScores:
    """Compute the scores of a set, bitwise identical for any order of its images. Raises ValueError if it is empty."""
    if not scores:
        raise ValueError("the mean needs the scores of at least one image")
    curves = {
        name: np.array([_mean(values) for values in zip(*(each.curves[name] for each in scores), strict=True)])
        for name in scores[0].curves
    }
    measures = {
        name: float(curves[_MAXIMA[name]].max()) if name in _MAXIMA else _mean([each.measures[name] for each in scores])
        for name in scores[0].measures
    }
    return SetScores(measures, curves, images=len(scores))


def _mean(values: Sequence[float]) -> float:
    """The mean of at least one value, bitwise identical for any order because `fsum` is exact."""
    return math.fsum(values) / len(values)
