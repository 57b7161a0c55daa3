"""The scores of one prediction against one mask: all measures from one count of levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics.comparison import Comparison
from camoxpert_cli.metrics.histogram import Counts, Empty, Map, Mask
from camoxpert_cli.metrics.measures import CURVES, EACH_EPOCH, MEASURES


@dataclass(frozen=True)
class Scores:
    """The `measures` that are known of an image, or of a set in the mean, by name and each an attribute too.

    `curves` are scores by threshold, float64 (256,) each: at index k a pixel is claimed where 255 times its value,
    rounded down, is k or more. At 0 all pixels are. PySODMetrics' curves run the other way: its index k is 255 - k
    here.
    """

    measures: Mapping[str, float]
    curves: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> float:
        try:
            return float(self.__dict__["measures"][name])
        except KeyError:  # also while it is being unpickled, and holds nothing yet
            raise AttributeError(f"no measure {name} is known") from None


@dataclass(frozen=True)
class ImageScores(Scores):
    """The scores of one image.

    `foreground` and `background` count the pixels of each level of the map, int64 (256,), on the object and beside it.
    """

    foreground: Counts = field(kw_only=True)
    background: Counts = field(kw_only=True)

    @property
    def area(self) -> float:
        """The share of the image that is the object."""
        objects = int(self.foreground.sum())
        return objects / (objects + int(self.background.sum()))


def score_image(grey: Map, mask: Mask, *, stretch: bool = True, empty: Empty = "reference") -> ImageScores:
    """All measures of a map, uint8 (H, W), against a mask, bool (H, W): those of PySODMetrics 1.6.2, within 1e-6.

    `stretch` moves the map's lowest level to 0 and its highest to 1 first, as papers do; without it a level counts
    as its 255th part.

    Where the mask has no object, `empty` "reference" gives PySODMetrics' values: F, weighted F, IoU and Dice are 0, and
    E grows with what is left out. "exact" says what is right: precision, F, E, IoU and Dice are, at each threshold,
    1 where nothing is claimed and 0 where something is; recall is 1; the weighted F is 1 where the whole map is 0,
    else 0; BER is the share of the background that is claimed. At threshold 0 everything is claimed, so a map of zeros
    scores 255/256 in the means of the curves. Where the mask has no background, "exact" lets E be the share that is
    claimed, and BER the share that is not. In both cases zeros claim nothing at its adaptive threshold, which
    PySODMetrics lets a map of zeros reach. A mask with an object and a background scores alike under both.

    One case differs from PySODMetrics: where the centre of the object is in the last row or column it gives NaN for the
    S-measure, and a part of the image without pixels counts nothing here.

    Raises ValueError for maps and masks of other types, of different sizes or without pixels.
    """
    _check(grey, mask)
    comparison = Comparison(grey, mask, stretch, empty, by_regions=True)
    return ImageScores(
        {each.name: float(each.score(comparison)) for each in MEASURES},
        {each.name: comparison.curve(each.measure) for each in CURVES},
        foreground=comparison.histogram.foreground,
        background=comparison.histogram.background,
    )


def quick_scores(grey: Map, mask: Mask, *, stretch: bool = True, empty: Empty = "reference") -> Scores:
    """The measures of every epoch's validation, which need neither distances nor regions: to the same bits."""
    _check(grey, mask)
    comparison = Comparison(grey, mask, stretch, empty, by_regions=False)
    return Scores({each.name: float(each.score(comparison)) for each in EACH_EPOCH})


def _check(grey: Map, mask: Mask) -> None:
    if grey.dtype != np.uint8 or mask.dtype != np.bool_:
        raise ValueError(f"a map is uint8 and a mask bool, not {grey.dtype} and {mask.dtype}")
    if grey.ndim != 2 or grey.shape != mask.shape or grey.size == 0:
        raise ValueError(f"a map and its mask are (H, W) of one size, not {grey.shape} and {mask.shape}")
