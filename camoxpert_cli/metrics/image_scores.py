"""The scores of one prediction against one mask: all metrics from one histogram of levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.comparison import Comparison
from camoxpert_cli.metrics.histogram import Counts, Empty, Mask, Prediction
from camoxpert_cli.metrics.measures import CURVES, EACH_EPOCH, MEASURES


@dataclass(frozen=True)
class Scores:
    """The metrics of an image (`measures`), or their means over a set, by name and as attributes.

    `curves` are scores by threshold, float64 (256,) each: at index k, a pixel is predicted as object if 255 times its
    value, rounded down, is at least k, so at 0 all pixels are. PySODMetrics' curves run in the opposite direction: its
    index k is 255 - k here.
    """

    measures: Mapping[str, float]
    curves: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> float:
        try:
            return float(self.__dict__["measures"][name])
        except KeyError:  # also during unpickling, when the instance is still empty
            raise AttributeError(f"unknown metric {name}") from None


@dataclass(frozen=True)
class ImageScores(Scores):
    """The scores of one image.

    `foreground` and `background`, int64 (256,), count the pixels of each level of the prediction on object and
    background.
    """

    foreground: Counts = field(kw_only=True)
    background: Counts = field(kw_only=True)

    @property
    def area(self) -> float:
        """Share of the image that is object."""
        objects = int(self.foreground.sum())
        return objects / (objects + int(self.background.sum()))


def score_image(grey: Prediction, mask: Mask, *, stretch: bool = True, empty: Empty = "reference") -> ImageScores:
    """Compute all metrics of a prediction, uint8 (H, W), against a mask, bool (H, W), like PySODMetrics 1.6.2 to 1e-6.

    `stretch` first maps the prediction's lowest level to 0 and its highest to 1, as papers do; without it, a level is
    divided by 255.

    If the mask has no object, `empty` "reference" gives PySODMetrics' values: F, weighted F, IoU and Dice are 0, and E
    increases with the share not predicted as object. "exact" gives the mathematically correct values: at each
    threshold, precision, F, E, IoU and Dice are 1 if nothing is predicted and 0 otherwise; recall is 1; the weighted F
    is 1 if the whole prediction is 0, otherwise 0; BER is the predicted share of the background. At threshold 0
    everything is predicted, so an all-zero prediction scores 255/256 in the means of the curves. If the mask has no
    background, "exact" defines E as the predicted share, and BER as the share not predicted. In both cases, zeros never
    reach the adaptive threshold, whereas in PySODMetrics an all-zero prediction does. A mask with both object and
    background scores the same with either setting.

    One case differs from PySODMetrics: if the center of the object is in the last row or column, PySODMetrics returns
    NaN for the S-measure, whereas here a region without pixels has no weight.

    Raises ValueError for predictions and masks with another dtype, different sizes or no pixels.
    """
    _check(grey, mask)
    comparison = Comparison(grey, mask, stretch, empty, by_regions=True)
    return ImageScores(
        {each.name: float(each.score(comparison)) for each in MEASURES},
        {each.name: comparison.curve(each.measure) for each in CURVES},
        foreground=comparison.histogram.foreground,
        background=comparison.histogram.background,
    )


def quick_scores(grey: Prediction, mask: Mask, *, stretch: bool = True, empty: Empty = "reference") -> Scores:
    """Compute only the metrics of each epoch's validation, which need neither distances nor regions.

    Their values are bitwise identical to those of `score_image`.
    """
    _check(grey, mask)
    comparison = Comparison(grey, mask, stretch, empty, by_regions=False)
    return Scores({each.name: float(each.score(comparison)) for each in EACH_EPOCH})


def _check(grey: Prediction, mask: Mask) -> None:
    if grey.dtype != np.uint8 or mask.dtype != np.bool_:
        raise ValueError(f"prediction and mask are {grey.dtype} and {mask.dtype}, expected uint8 and bool")
    if grey.ndim != 2 or grey.shape != mask.shape or grey.size == 0:
        raise ValueError(f"prediction and mask have shapes {grey.shape} and {mask.shape}, expected the same (H, W)")
