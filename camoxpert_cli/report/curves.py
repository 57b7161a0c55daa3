"""How training went: losses, scores on the validation pictures and learning rate over the epochs."""

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

from camoxpert_cli.report import charts
from camoxpert_cli.report.words import label

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class TrainingChart:
    title: str
    description: str
    draw: Callable[[Axes], None]


def write_training_curves(path: Path, history: History) -> None:
    """A PNG picture of a run's history.json; writes nothing where no epoch is complete.

    A row's keys are `epoch`, `stage`, `train_loss`, `iou`, `dice`, `mae`, `lr`; what no row has is not drawn.
    """
    panels = training_charts(history)
    if panels:
        charts.write_png(path, [(panel.title, panel.draw) for panel in panels])


def training_charts(history: History) -> list[TrainingChart]:
    """What there is to draw of a history."""
    losses = tuple(dict.fromkeys(key for row in history for key in row if key.endswith("loss")))
    panels = [
        ("Loss", losses),
        ("Validation IoU and Dice", ("iou", "dice")),
        ("Validation MAE", ("mae",)),
        ("Learning rate", ("lr",)),
    ]
    return [chart for title, keys in panels if (chart := _chart(history, title, keys)) is not None]


def _chart(history: History, title: str, keys: Sequence[str]) -> TrainingChart | None:
    series = {key: values for key in keys if np.isfinite(values := _values(history, key)).any()}
    if not series:
        return None
    epochs = _values(history, "epoch")
    changes = _stage_changes(history)

    def draw(axes: Axes) -> None:
        for position, (key, values) in enumerate(series.items()):
            charts.line(axes, position % len(charts.LINES), epochs, values, label(key))
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
    """For readers who do not see the chart."""
    last = ", ".join(
        f"{label(key)} from {finite[0]:.4g} to {finite[-1]:.4g}"
        for key, values in series.items()
        for finite in [values[np.isfinite(values)]]
    )
    return f"{title} over {len(epochs)} epochs: {last}"


def _values(history: History, key: str) -> NDArray[np.float64]:
    """(epochs,), NaN where a row has no finite number."""
    values = [row.get(key) for row in history]
    return np.array([v if isinstance(v, int | float) and math.isfinite(v) else math.nan for v in values], np.float64)


def _stage_changes(history: History) -> list[tuple[float, Any]]:
    """Between which two epochs a new stage begins, and its number."""
    return [
        (after["epoch"] - 0.5, after["stage"])
        for before, after in itertools.pairwise(history)
        if "stage" in after and before.get("stage", after["stage"]) != after["stage"]
    ]
