"""Scores of generated discs, as an evaluation has them."""

from __future__ import annotations

import numpy as np

from camoxpert_cli.evaluation.results import Evaluation, ScoredSet
from camoxpert_cli.metrics.image_scores import ImageScores, score_image


def _scores_of(seed: int, radius: int) -> ImageScores:
    """Of a blurred disc against a disc, in noise."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:40, :50]
    distance = np.hypot(rows - 20, columns - 25)
    grey = np.clip(255 - 12 * distance + draw.normal(0, 30, distance.shape), 0, 255)
    return score_image(grey.astype(np.uint8), distance < radius)


def example_evaluation() -> Evaluation:
    """Of COD10K, by names of two super-classes and one of another kind, and of a set of the user's own."""
    names = ["COD10K-CAM-1-Aquatic-3-Crab-70", 'odd, "name"', "COD10K-CAM-3-Flying-65-Owl-4"]
    scores = [_scores_of(1, 10), _scores_of(2, 3), _scores_of(3, 15)]
    sets = [ScoredSet("COD10K", names, scores), ScoredSet("mine", ["a"], [_scores_of(4, 8)])]
    return Evaluation("best.pth", {"checkpoint": "best.pth"}, sets, lambda name, index: None)  # type: ignore[arg-type, return-value]
