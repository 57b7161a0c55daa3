from __future__ import annotations

import re

import numpy as np

from camoxpert_cli.report.content import ReportSet
from camoxpert_cli.report.set_charts import set_charts

NO_PIXELS = np.zeros(256, np.int64)


def test_precision_is_drawn_over_recall() -> None:
    """Where precision is the same at each threshold its line is level, and reaches over all of recall."""
    curves = {"precision": np.full(256, 0.5), "recall": np.linspace(1, 0, 256)}
    (chart,) = set_charts(ReportSet("set", 1, {}, curves, NO_PIXELS, NO_PIXELS, [], []), "set-0", str)
    line = re.search(r'd="([^"]*)"[^>]*var\(--line-0\)', chart.svg)

    assert line is not None
    points = np.array(re.findall(r"[-\d.]+", line[1]), float).reshape(-1, 2)
    across, down = np.ptp(points, axis=0)
    assert down == 0
    assert across > 200
