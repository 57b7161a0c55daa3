"""The charts of one dataset: precision against recall, metrics against the threshold, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from camoxpert_cli.report import charts
from camoxpert_cli.report.calibration import BINS, Calibration, calibration
from camoxpert_cli.report.content import LEVELS, ReportSet

THRESHOLDS = np.arange(LEVELS) / (LEVELS - 1)


@dataclass(frozen=True)
class Chart:
    title: str
    svg: str
    caption: str


def set_charts(each: ReportSet, name: str, label: Callable[[str], str]) -> list[Chart]:
    """Return the charts for which the set has data; `name` is unique in the page, `label` returns a curve's label."""
    found = calibration(each.foreground, each.background)
    drawn = [
        _precision_recall(each.curves, f"{name}-pr", each.name),
        _thresholds(each.curves, f"{name}-thresholds", each.name, label),
        None if found is None else _calibration(found, f"{name}-calibration", each.name),
    ]
    return [chart for chart in drawn if chart is not None]


def _precision_recall(curves: Mapping[str, NDArray[np.float64]], name: str, of: str) -> Chart | None:
    if not {"precision", "recall"} <= curves.keys():
        return None

    def draw(axes: Axes) -> None:
        charts.line(axes, 0, curves["recall"], curves["precision"], "precision")
        charts.from_0_to_1(axes, "recall", "precision")

    caption = f"Means over images at {LEVELS} thresholds."
    return Chart("Precision and recall", charts.svg(draw, name, f"Precision against recall on {of}"), caption)


def _thresholds(
    curves: Mapping[str, NDArray[np.float64]], name: str, of: str, label: Callable[[str], str]
) -> Chart | None:
    shown = {label(key): values for key, values in curves.items() if key not in ("precision", "recall")}
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        for position, (title, values) in enumerate(shown.items()):
            charts.line(axes, position, THRESHOLDS, values, title)
        charts.from_0_to_1(axes, "threshold", "mean over images")

    best = "; ".join(_best(title, values) for title, values in shown.items())
    description = f"{', '.join(shown)} against the threshold on {of}"
    return Chart("Metrics by threshold", charts.svg(draw, name, description), f"Maxima: {best}.")


def _best(title: str, values: NDArray[np.float64]) -> str:
    at = int(np.argmax(values))
    return f"{title} {values[at]:.3f} at {THRESHOLDS[at]:.2f}"


def _calibration(found: Calibration, name: str, of: str) -> Chart:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=charts.FAINT, linewidth=1, linestyle=charts.DASHES[1])
        axes.plot(found.predicted, found.observed, color=charts.LINES[0], marker="o", markersize=4)
        charts.from_0_to_1(axes, "predicted probability", "fraction of object pixels")

    caption = (
        f"Expected calibration error {found.error:.4f} over all pixels, {BINS} bins. "
        "Below the dashed line, the predicted probability exceeds the actual fraction of object pixels."
    )
    return Chart(
        "Calibration",
        charts.svg(draw, name, f"Fraction of object pixels against predicted probability on {of}"),
        caption,
    )
