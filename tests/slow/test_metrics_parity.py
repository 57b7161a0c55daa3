"""Against PySODMetrics itself: `pip install camox[parity]`, then `pytest tests/slow/test_metrics_parity.py -s`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camoxpert_cli.data.levels import SCORED_OBJECT
from camoxpert_cli.metrics.image_scores import score_image
from camoxpert_cli.metrics.score_set import mean_scores
from tests.helpers.places import SHARED_DATA
from tests.unit.metrics.pairs import Grey, Mask, generated_pair
from tests.unit.metrics.reference import reference_results, reference_scores

pytest.importorskip("py_sod_metrics", reason="PySODMetrics is not installed: pip install camox[parity]")

REAL = SHARED_DATA / "metric_pairs"
# Ours takes distances and errors on the object in single precision; all else is in double (measured: 1.1e-7 and 4e-16).
TOLERANCE = 1e-6


def largest_differences(pairs: Iterable[tuple[Grey, Mask]], stretch: bool) -> dict[str, float]:
    """By measure and by curve; a NaN of the reference asks for a finite number."""
    largest: dict[str, float] = {}
    for grey, mask in pairs:
        ours = score_image(grey, mask, stretch=stretch)
        scores, curves = reference_scores(grey, mask, stretch)
        for name, score in scores.items():
            value = getattr(ours, name)
            assert math.isfinite(value)
            difference = 0.0 if name == "s_measure" and math.isnan(score) else abs(score - value)
            largest[name] = max(largest.get(name, 0.0), difference)
        for name, curve in curves.items():
            difference = float(np.abs(curve - ours.curves[name]).max())
            largest[f"{name} curve"] = max(largest.get(f"{name} curve", 0.0), difference)
    return largest


def assert_small(differences: dict[str, float]) -> None:
    for name, difference in differences.items():
        print(f"{name:16} {difference:.1e}")

    assert {name: value for name, value in differences.items() if not value <= TOLERANCE} == {}


def real_pairs() -> list[tuple[Path, Path]]:
    """Prediction and mask of each real image."""
    folders = [
        ("cod10k_sinet", "Pred_SINet"),
        ("pysodmetrics", "Pred"),
        ("sod_evaltool", "Pred_rs1"),
        ("sod_evaltool", "Pred_rs2"),
    ]
    return [
        (prediction, REAL / source / "GT" / prediction.name)
        for source, folder in folders
        for prediction in sorted((REAL / source / folder).iterdir())
    ]


def read(path: Path) -> Any:
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize("stretch", [True, False])
@pytest.mark.parametrize(("seeds", "largest"), [(range(1900), 160), (range(5000, 5100), 1200)])
def test_generated_pairs(seeds: range, largest: int, stretch: bool) -> None:
    """2000 pairs with sides of 8 to 1200 pixels, ordinary and odd ones, score as PySODMetrics scores them."""
    assert_small(largest_differences((generated_pair(seed, largest) for seed in seeds), stretch))


@pytest.mark.skipif(not REAL.is_dir(), reason="the real maps and masks are not beside the repository")
@pytest.mark.parametrize("stretch", [True, False])
def test_real_pairs(stretch: bool) -> None:
    """Maps of published networks with their masks, an empty one and one of several grey levels among them."""
    pairs = [(read(prediction), read(mask) > SCORED_OBJECT) for prediction, mask in real_pairs()]

    assert len(pairs) == 16
    assert_small(largest_differences(pairs, stretch))


def test_sets() -> None:
    """Over a set of images the maxima, too, are PySODMetrics': those of the mean curve."""
    pairs = [pair for pair in map(generated_pair, range(300)) if 0 < pair[1].mean() < 1]
    ours = mean_scores([score_image(*pair) for pair in pairs])
    theirs = reference_results(pairs, stretch=True)

    for ours_max, curve in (
        (ours.e_max, theirs["em"]["curve"]),
        (ours.f_max, theirs["f"]["dynamic"]),
        (ours.iou_max, theirs["iou"]["dynamic"]),
        (ours.dice_max, theirs["dice"]["dynamic"]),
    ):
        assert ours_max == pytest.approx(curve.max(), abs=1e-12)
    assert ours.e_mean == pytest.approx(theirs["em"]["curve"].mean(), abs=1e-12)
    assert ours.weighted_f == pytest.approx(theirs["wfm"], abs=TOLERANCE)
