"""Small maps and masks drawn as text, and what is counted of them."""

from __future__ import annotations

import numpy as np

from camoxpert_cli.metrics.histogram import Histogram, count_levels, histogram_of
from camoxpert_cli.metrics.thresholds import ConfusionCounts, half
from tests.unit.metrics.pairs import Grey, Mask


def drawn(*rows: str) -> tuple[Grey, Mask]:
    """Map and mask from cells: P claimed only, M object only, B both, . neither; claimed is 255, else 0."""
    cells = np.array([list(row) for row in rows])
    return np.isin(cells, ["P", "B"]).astype(np.uint8) * 255, np.isin(cells, ["M", "B"])


def histogram(grey: Grey, mask: Mask, stretch: bool = False) -> Histogram:
    return histogram_of(count_levels(grey, mask), count_levels(grey, ~mask), stretch)


def confusion(*rows: str) -> ConfusionCounts:
    return half(histogram(*drawn(*rows)))
