"""The scores of a set of pictures: each picture counts the same, whatever its size and however they came in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from camoxpert_cli.metrics.image_scores import Curves, Measures, PictureScores

_MAXIMA = {"e_max": "e", "f_max": "f", "iou_max": "iou", "dice_max": "dice"}


@dataclass(frozen=True)
class SetScores(Measures):
    """Means over `pictures` of the measures of the same names in `PictureScores`, and of its curves at each threshold.

    A maximum is that of the mean curve, at the one threshold that is best for the whole set, as PySODMetrics and papers
    give it: not above the mean over pictures of each one's own maximum.
    """

    pictures: int


def mean_scores(scores: Sequence[PictureScores]) -> SetScores:
    """The scores of a set, the same to the last bit in whatever order its pictures come. Raises ValueError for none."""
    if not scores:
        raise ValueError("the mean needs the scores of at least one picture")
    curves = Curves(
        **{
            field.name: np.array(
                [mean(values) for values in zip(*(getattr(each.curves, field.name) for each in scores), strict=True)]
            )
            for field in fields(Curves)
        }
    )
    means = {
        field.name: mean([getattr(each, field.name) for each in scores])
        for field in fields(Measures)
        if field.type == "float"
    }
    maxima = {name: float(getattr(curves, curve).max()) for name, curve in _MAXIMA.items()}
    return SetScores(pictures=len(scores), curves=curves, **{**means, **maxima})


def mean(values: Sequence[float]) -> float:
    """Of at least one value, the same to the last bit in whatever order: `fsum` is exact."""
    return math.fsum(values) / len(values)
