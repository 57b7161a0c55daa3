"""Builds the report of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camoxpert_cli import console
from camoxpert_cli.evaluation.published import published_for
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet, Shown
from camoxpert_cli.metrics.false_alarms import describe
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.metrics.measures import COLUMNS, CURVES, MEASURES
from camoxpert_cli.report.content import MeasureWords, Report, ReportSet, ShownImage
from camoxpert_cli.report.page import write_report
from camoxpert_cli.run_folder import environment

MEASURE_WORDS = {
    **{each.name: MeasureWords(each.label) for each in CURVES},
    **{each.name: MeasureWords(each.label, each.best == "lowest") for each in MEASURES},
}
_PLACES = {"worst": 4, "median": 2, "best": 3}  # number of images each
_RANKED_BY = "iou"
_BESIDE_AN_IMAGE = tuple(each.name for each in MEASURES if each.heading)


def write_evaluation_report(
    path: Path,
    evaluation: Evaluation,
    *,
    configuration: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page of `report_of` to `path`."""
    write_report(path, report_of(evaluation, configuration=configuration, history=history))


def report_of(
    evaluation: Evaluation,
    *,
    configuration: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """Collect scores, curves, slices and images of an evaluation.

    `history` is that of the run, after training; `configuration` defaults to the evaluation's own description.
    """
    sets = [each for each in evaluation.sets if each.counted]
    return Report(
        title=evaluation.title,
        subtitle=", ".join(f"{each.name}: {console.counted(len(each.counted), 'image')}" for each in sets),
        sets=[_report_set(each, evaluation.show) for each in sets],
        published={
            each.name: [(row.system, row.source, row.scores) for row in published_for(each.name)] for each in sets
        },
        history=history,
        configuration=evaluation.about if configuration is None else configuration,
        environment=environment(),
        measures=MEASURE_WORDS,
        notes=[
            f"{each.name}: {describe(each.false_alarms)}" for each in evaluation.sets if each.false_alarms is not None
        ],
    )


def _report_set(each: ScoredSet, show: Callable[[str, int], Shown]) -> ReportSet:
    shown = []
    counted = [each.scores[index] for index in each.counted]
    for place, at in places([score.measures[_RANKED_BY] for score in counted]):
        index = each.counted[at]
        image, mask, grey = show(each.name, index)
        shown_image = np.repeat(grey[..., None], 3, axis=2) if image is None else image
        scores = _chosen(each.scores[index], _BESIDE_AN_IMAGE)
        shown.append(ShownImage(place, each.names[index], shown_image, mask, grey, scores))
    return ReportSet(
        name=each.name,
        images=len(counted),
        means=_chosen(each.means, COLUMNS),
        curves=each.means.curves,
        foreground=np.sum([score.foreground for score in counted], axis=0),
        background=np.sum([score.background for score in counted], axis=0),
        slices=[(label, count, _chosen(means, COLUMNS)) for label, (count, means) in each.slices.items()],
        shown=shown,
    )


def _chosen(scores: Scores, names: Sequence[str]) -> dict[str, float]:
    return {name: scores.measures[name] for name in names}


def places(scores: Sequence[float]) -> list[tuple[str, int]]:
    """Return the worst, median and best images, each only once, with their indices."""
    order = sorted(range(len(scores)), key=lambda index: (scores[index], index))
    middle = len(order) // 2
    wanted = {
        "worst": order[: _PLACES["worst"]],
        "median": order[middle - _PLACES["median"] // 2 : middle + _PLACES["median"] // 2],
        "best": order[::-1][: _PLACES["best"]],
    }
    found: dict[int, str] = {}
    for place, indices in wanted.items():
        for index in indices:
            found.setdefault(index, place)
    return [(place, index) for index, place in found.items()]
