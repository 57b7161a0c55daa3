"""The table of metrics: the name, range and direction of each, and where it is shown.

To add a metric, add a file next to this one and a row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from camoxpert_cli.metrics.comparison import ClaimsMeasure, Comparison
from camoxpert_cli.metrics.e_measure import e_measure
from camoxpert_cli.metrics.f_measure import f_measure, precision, recall
from camoxpert_cli.metrics.mae import mae
from camoxpert_cli.metrics.overlap import ber, dice, iou
from camoxpert_cli.metrics.s_measure import s_measure
from camoxpert_cli.metrics.weighted_f import weighted_f

Score: TypeAlias = Callable[[Comparison], float]


@dataclass(frozen=True)
class Measure:
    """A row of the table. `name` is the key in results.json, which contains every metric in the order of the table.

    `label` is used in the tables of a report. `score` computes the metric of one prediction, within `range`; the other
    fields determine where else it is shown.
    """

    name: str
    label: str
    score: Score
    best: Literal["highest", "lowest"] = "highest"
    range: tuple[float, float] = (0.0, 1.0)
    # Over a set, it is the maximum of the mean of this curve.
    maximum_of: str = ""
    # A column of per_image.csv and of a report's tables.
    per_image: bool = False
    # The heading of its column in the first table of `camox eval`; a report shows it next to an image.
    heading: str = ""
    # Its row in the second table of `camox eval`: three metrics per row, at one threshold, mean and maximum.
    family: str = ""
    # Its position, from 1, among the columns of the table at the end of a run.
    summary: int | None = None
    # Computed in each epoch's validation.
    each_epoch: bool = False
    # Printed in the line at the end of an epoch, which has space for only a few.
    epoch_line: bool = False


@dataclass(frozen=True)
class Curve:
    """A metric as a function of the threshold, as drawn in a report."""

    name: str
    label: str
    measure: ClaimsMeasure


def _half(measure: ClaimsMeasure) -> Score:
    """Score with values above one half predicted as object."""
    return lambda comparison: measure(comparison.half, comparison.empty)[0]


def _adaptive(measure: ClaimsMeasure) -> Score:
    """Score with values of at least twice the prediction's mean predicted as object."""
    return lambda comparison: measure(comparison.adaptive, comparison.empty)[0]


def _mean(measure: ClaimsMeasure) -> Score:
    return lambda comparison: comparison.curve(measure).mean()


def _maximum(measure: ClaimsMeasure) -> Score:
    return lambda comparison: comparison.curve(measure).max()


def _structure(each: Comparison) -> float:
    return s_measure(each.histogram, each.regions, each.grey)


def _weighted(each: Comparison) -> float:
    return weighted_f(each.grey, each.mask, each.box, each.histogram, each.empty)


# The E-measure may exceed its range by one over the number of pixels.
_E, _F = "E-measure", "F-measure"
MEASURES = (
    Measure("s_measure", "S", _structure, per_image=True, heading="S", summary=4),
    Measure("e_adaptive", "E adaptive", _adaptive(e_measure), per_image=True, family=_E),
    Measure("e_mean", "E mean", _mean(e_measure), per_image=True, heading="E", family=_E, summary=5),
    Measure("e_max", "E max", _maximum(e_measure), maximum_of="e", per_image=True, family=_E),
    Measure("f_adaptive", "F adaptive", _adaptive(f_measure), per_image=True, family=_F),
    Measure("f_mean", "F mean", _mean(f_measure), per_image=True, heading="F", family=_F),
    Measure("f_max", "F max", _maximum(f_measure), maximum_of="f", per_image=True, family=_F),
    Measure("weighted_f", "weighted F", _weighted, per_image=True, heading="wF", summary=6),
    Measure(
        "mae",
        "MAE",
        lambda comparison: mae(comparison.histogram),
        best="lowest",
        per_image=True,
        heading="MAE",
        summary=3,
        each_epoch=True,
        epoch_line=True,
    ),
    Measure(
        "iou",
        "IoU",
        _half(iou),
        per_image=True,
        heading="IoU",
        family="IoU",
        summary=1,
        each_epoch=True,
        epoch_line=True,
    ),
    Measure("dice", "Dice", _half(dice), per_image=True, heading="Dice", family="Dice", summary=2, each_epoch=True),
    # Not reported in papers, but available from the same counts.
    Measure("iou_mean", "IoU mean", _mean(iou), family="IoU"),
    Measure("iou_max", "IoU max", _maximum(iou), maximum_of="iou", family="IoU"),
    Measure("dice_mean", "Dice mean", _mean(dice), family="Dice"),
    Measure("dice_max", "Dice max", _maximum(dice), maximum_of="dice", family="Dice"),
    Measure("ber", "BER", _half(ber), best="lowest"),
)
CURVES = (
    Curve("precision", "Precision", precision),
    Curve("recall", "Recall", recall),
    Curve("f", "F", f_measure),
    Curve("e", "E", e_measure),
    Curve("iou", "IoU", iou),
    Curve("dice", "Dice", dice),
)

COLUMNS = tuple(each.name for each in MEASURES if each.per_image)
_AS_RUNS_TELL = sorted(MEASURES, key=lambda each: each.summary or len(MEASURES))
SUMMARY = tuple(each for each in _AS_RUNS_TELL if each.summary)
EACH_EPOCH = tuple(each for each in _AS_RUNS_TELL if each.each_epoch)
