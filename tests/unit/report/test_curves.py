from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from camoxpert_cli.report.curves import training_charts, write_training_curves
from tests.helpers.example_report import MEASURES, example_history


def titles(history: list[dict[str, Any]]) -> list[str]:
    return [chart.title for chart in training_charts(history, MEASURES)]


def test_every_series_has_its_chart() -> None:
    """Loss, IoU and Dice, MAE and rate are drawn over all epochs, with the values of the history."""
    history = example_history(10)
    drawn: dict[str, Any] = {}
    for chart in training_charts(history, MEASURES):
        axes = Figure().add_subplot()
        chart.draw(axes)
        drawn |= {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.lines}
    expected = {"training": "train_loss", "IoU": "iou", "Dice": "dice", "MAE": "mae", "learning rate": "lr"}

    assert {name: drawn[name].tolist() for name in expected} == {
        name: [[row["epoch"], row[key]] for row in history] for name, key in expected.items()
    }


def test_new_stage_is_marked() -> None:
    """A line between the last epoch of a stage and the first of the next one, with its number."""
    for chart in training_charts(example_history(10), MEASURES):
        axes = Figure().add_subplot()
        chart.draw(axes)

        assert [line.get_xdata() for line in axes.lines if str(line.get_label()).startswith("_")] == [[3.5, 3.5]]
        assert [text.get_text() for text in axes.texts] == ["stage 2"]


def test_what_is_missing_is_not_drawn() -> None:
    """Rows of other programs may lack keys or have no finite number: what no row has gets no chart."""
    assert titles([{"epoch": 1, "iou": 0.5}, {"epoch": 2, "iou": float("nan")}]) == ["Validation IoU"]
    assert titles([{"epoch": 1, "iou": None, "train_loss": float("inf")}]) == []


def test_one_epoch_is_a_dot(tmp_path: Path) -> None:
    """A line of one point would not be seen."""
    for chart in training_charts(example_history(1), MEASURES):
        axes = Figure().add_subplot()
        chart.draw(axes)

        assert {line.get_marker() for line in axes.lines} == {"o"}


def test_no_epoch_no_image(tmp_path: Path) -> None:
    """A run that ended within its first epoch has nothing to draw, which is no error."""
    write_training_curves(tmp_path / "curves.png", [], MEASURES)

    assert list(tmp_path.iterdir()) == []
