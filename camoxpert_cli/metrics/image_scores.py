"""The scores of one map against one mask: all measures from one count of levels, and distances for the weighted F."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.metrics import thresholds
from camoxpert_cli.metrics.e_measure import e_measure
from camoxpert_cli.metrics.f_measure import f_measure, precision, recall
from camoxpert_cli.metrics.histogram import (
    LEVELS,
    Counts,
    Empty,
    Histogram,
    Map,
    Mask,
    count_levels,
    histogram_of,
    object_box,
)
from camoxpert_cli.metrics.mae import mae
from camoxpert_cli.metrics.overlap import ber, dice, iou
from camoxpert_cli.metrics.s_measure import count_regions, s_measure
from camoxpert_cli.metrics.thresholds import Claims
from camoxpert_cli.metrics.weighted_f import weighted_f

__all__ = ["LEVELS", "Curves", "Measures", "PictureScores", "QuickScores", "quick_scores", "score_picture"]


@dataclass(frozen=True)
class Curves:
    """Scores by threshold, float64 (256,) each: at index k a pixel is claimed where 255 times its value, rounded down,
    is k or more. At 0 all pixels are. PySODMetrics' curves run the other way: its index k is 255 - k here.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f: NDArray[np.float64]
    e: NDArray[np.float64]
    iou: NDArray[np.float64]
    dice: NDArray[np.float64]


@dataclass(frozen=True)
class Measures:
    """What is known of a picture, and in the mean of a set.

    `iou`, `dice` and `ber` claim values above one half; `_adaptive` those of at least twice the map's mean; `_mean` and
    `_max` are those of the curve. `area` is the share of the picture that is the object. All lie in 0..1 but for the
    E-measure, which may exceed 1 by one over the number of pixels; for `mae` and `ber` 0 is best, for the others 1.
    """

    s_measure: float
    e_adaptive: float
    e_mean: float
    e_max: float
    f_adaptive: float
    f_mean: float
    f_max: float
    weighted_f: float
    mae: float
    iou: float
    dice: float
    iou_mean: float
    iou_max: float
    dice_mean: float
    dice_max: float
    ber: float
    area: float
    curves: Curves


@dataclass(frozen=True)
class PictureScores(Measures):
    """The measures of one picture, and its curves.

    `foreground` and `background` count the pixels of each level of the map, int64 (256,), on the object and beside it.
    """

    foreground: Counts
    background: Counts


@dataclass(frozen=True)
class QuickScores:
    """The measures that cost least, to the bits of `PictureScores`."""

    iou: float
    dice: float
    mae: float


def score_picture(grey: Map, mask: Mask, *, stretch: bool = True, empty: Empty = "reference") -> PictureScores:
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
    S-measure, and a part of the picture without pixels counts nothing here.

    Raises ValueError for maps and masks of other types, of different sizes or without pixels.
    """
    _check(grey, mask)
    box = object_box(mask)
    regions = count_regions(grey, mask, box)
    foreground = np.sum([region.foreground for region in regions], axis=0)
    background = np.sum([region.background for region in regions], axis=0)
    histogram = histogram_of(foreground, background, stretch)
    half, adaptive = thresholds.half(histogram), thresholds.adaptive(histogram, grey, empty)
    quick, curves = _quick(histogram, half, empty), _curves(histogram, empty)
    return PictureScores(
        s_measure=float(s_measure(histogram, regions, grey)),
        e_adaptive=float(e_measure(adaptive, empty)[0]),
        e_mean=float(curves.e.mean()),
        e_max=float(curves.e.max()),
        f_adaptive=float(f_measure(precision(adaptive, empty), recall(adaptive, empty))[0]),
        f_mean=float(curves.f.mean()),
        f_max=float(curves.f.max()),
        weighted_f=float(weighted_f(grey, mask, box, histogram, empty)),
        mae=quick.mae,
        iou=quick.iou,
        dice=quick.dice,
        iou_mean=float(curves.iou.mean()),
        iou_max=float(curves.iou.max()),
        dice_mean=float(curves.dice.mean()),
        dice_max=float(curves.dice.max()),
        ber=float(ber(half, empty)[0]),
        area=histogram.objects / histogram.pixels,
        curves=curves,
        foreground=histogram.foreground,
        background=histogram.background,
    )


def quick_scores(grey: Map, mask: Mask, *, stretch: bool = True, empty: Empty = "reference") -> QuickScores:
    """Those measures of `score_picture` that need neither distances nor regions."""
    _check(grey, mask)
    foreground = count_levels(grey, mask)
    histogram = histogram_of(foreground, count_levels(grey) - foreground, stretch)
    return _quick(histogram, thresholds.half(histogram), empty)


def _quick(histogram: Histogram, half: Claims, empty: Empty) -> QuickScores:
    return QuickScores(float(iou(half, empty)[0]), float(dice(half, empty)[0]), float(mae(histogram)))


def _curves(histogram: Histogram, empty: Empty) -> Curves:
    claims = thresholds.every_threshold(histogram)
    precisions, recalls = precision(claims, empty), recall(claims, empty)
    return Curves(
        precision=precisions,
        recall=recalls,
        f=f_measure(precisions, recalls),
        e=e_measure(claims, empty),
        iou=iou(claims, empty),
        dice=dice(claims, empty),
    )


def _check(grey: Map, mask: Mask) -> None:
    if grey.dtype != np.uint8 or mask.dtype != np.bool_:
        raise ValueError(f"a map is uint8 and a mask bool, not {grey.dtype} and {mask.dtype}")
    if grey.ndim != 2 or grey.shape != mask.shape or grey.size == 0:
        raise ValueError(f"a map and its mask are (H, W) of one size, not {grey.shape} and {mask.shape}")
