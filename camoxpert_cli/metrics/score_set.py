"""The scores of a set of images: each image counts the same, whatever its size and however they came in batches."""

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
    """Means over `images` of the measures and curves of each.

    A maximum is that of the mean curve, at the one threshold that is best for the whole set, as PySODMetrics and papers
    give it: not above the mean over images of each one's own maximum.
    """

    images: int = field(kw_only=True)


def mean_scores(scores: Sequence[Scores]) -> SetScores:
    """The scores of a set, the same to the last bit in whatever order its images come. Raises ValueError for none."""
    if not scores:
        raise ValueError("the mean needs the scores of at least one picture")
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
    """Of at least one value, the same to the last bit in whatever order: `fsum` is exact."""
    return math.fsum(values) / len(values)
