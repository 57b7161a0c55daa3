"""Training curves: losses, validation scores and learning rate by epoch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from camoxpert_cli import console
from camoxpert_cli.report import charts
from camoxpert_cli.report.content import MeasureWords

History = Sequence[Mapping[str, Any]]
Measures = Mapping[str, MeasureWords]

_LABELS = {"train_loss": "training", "lr": "learning rate"}


@dataclass(frozen=True)
class TrainingChart:
    title: str
    description: str
    draw: Callable[[Axes], None]


def write_training_curves(path: Path, history: History, measures: Measures) -> None:
    """Write a PNG image of a run's history.json; writes nothing if no epoch is complete.

    The keys of a row are `epoch`, `stage`, `train_loss`, `lr` and the names of `measures`; absent keys are not plotted.
    """
    panels = training_charts(history, measures)
    if panels:
        charts.write_png(path, [(panel.title, panel.draw) for panel in panels])


def training_charts(history: History, measures: Measures) -> list[TrainingChart]:
    """Return the charts of a history; metrics for which lower is better have a separate chart."""
    keys = list(dict.fromkeys(key for row in history for key in row))
    series = {key: values for key in keys if np.isfinite(values := _values(history, key)).any()}
    higher = [key for key in series if key in measures and not measures[key].lower_is_better]
    lower = [key for key in series if key in measures and measures[key].lower_is_better]
    panels = [
        ("Loss", [key for key in series if key.endswith("loss")]),
        *((f"Validation {' and '.join(measures[key].label for key in group)}", group) for group in (higher, lower)),
        ("Learning rate", [key for key in series if key == "lr"]),
    ]
    labels = {**_LABELS, **{key: words.label for key, words in measures.items()}}
    return [
        _chart(history, title, {labels.get(key, key): series[key] for key in group}) for title, group in panels if group
    ]


def _chart(history: History, title: str, series: Mapping[str, NDArray[np.float64]]) -> TrainingChart:
    epochs = _values(history, "epoch")
    changes = _stage_changes(history)

    def draw(axes: Axes) -> None:
        for position, (label, values) in enumerate(series.items()):
            charts.line(axes, position % len(charts.LINES), epochs, values, label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        for epoch, stage in changes:
            axes.axvline(epoch, color=charts.FAINT, linewidth=1, linestyle=(0, (3, 2)))
            axes.annotate(
                f"stage {stage}",
                (epoch, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                fontsize=10,
            )

    return TrainingChart(title, _description(title, series, epochs), draw)


def _description(title: str, series: Mapping[str, NDArray[np.float64]], epochs: NDArray[np.float64]) -> str:
    """A text alternative to the chart for screen readers."""
    last = ", ".join(
        f"{label} from {finite[0]:.4g} to {finite[-1]:.4g}"
        for label, values in series.items()
        for finite in [values[np.isfinite(values)]]
    )
    return f"{title} over {console.counted(len(epochs), 'epoch')}: {last}"


def _values(history: History, key: str) -> NDArray[np.float64]:
    """The values of a key, (epochs,), with NaN where a row has no finite number."""
    values = [row.get(key) for row in history]
    return np.array([v if isinstance(v, int | float) and math.isfinite(v) else math.nan for v in values], np.float64)


def _stage_changes(history: History) -> list[tuple[float, Any]]:
    """The positions between epochs at which a new stage begins, and its number."""
    return [
        (after["epoch"] - 0.5, after["stage"])
        for before, after in itertools.pairwise(history)
        if "stage" in after and before.get("stage", after["stage"]) != after["stage"]
    ]
