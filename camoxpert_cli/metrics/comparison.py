"""One prediction compared with its mask: the intermediate results that metrics share, each computed on first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics import thresholds
from camoxpert_cli.metrics.histogram import (
    Box,
    Empty,
    Histogram,
    Mask,
    Prediction,
    count_levels,
    histogram_of,
    object_box,
)
from camoxpert_cli.metrics.s_measure import Region, count_regions
from camoxpert_cli.metrics.thresholds import ConfusionCounts

# A metric of the predicted object at each of the thresholds (T,).
ClaimsMeasure: TypeAlias = Callable[[ConfusionCounts, Empty], NDArray[np.float64]]


@dataclass(frozen=True)
class Comparison:
    """A prediction uint8 (H, W) and its mask bool (H, W); `stretch` and `empty` as in `score_image`.

    With `by_regions`, levels are counted once per region of the S-measure, and the total is the sum of the regions.
    """

    grey: Prediction
    mask: Mask
    stretch: bool
    empty: Empty
    by_regions: bool

    @cached_property
    def box(self) -> Box:
        """The rows and columns that contain the object."""
        return object_box(self.mask)

    @cached_property
    def regions(self) -> list[Region]:
        return count_regions(self.grey, self.mask, self.box)

    @cached_property
    def histogram(self) -> Histogram:
        if self.by_regions:
            foreground = np.sum([region.foreground for region in self.regions], axis=0)
            background = np.sum([region.background for region in self.regions], axis=0)
        else:
            foreground = count_levels(self.grey, self.mask)
            background = count_levels(self.grey) - foreground
        return histogram_of(foreground, background, self.stretch)

    @cached_property
    def half(self) -> ConfusionCounts:
        return thresholds.half(self.histogram)

    @cached_property
    def adaptive(self) -> ConfusionCounts:
        return thresholds.adaptive(self.histogram, self.grey, self.empty)

    @cached_property
    def every_threshold(self) -> ConfusionCounts:
        return thresholds.every_threshold(self.histogram)

    @cached_property
    def _curves(self) -> dict[ClaimsMeasure, NDArray[np.float64]]:
        return {}

    def curve(self, measure: ClaimsMeasure) -> NDArray[np.float64]:
        """Return the metric at each of the 256 thresholds."""
        if measure not in self._curves:
            self._curves[measure] = measure(self.every_threshold, self.empty)
        return self._curves[measure]
