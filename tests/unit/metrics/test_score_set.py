from __future__ import annotations

import random

import numpy as np
import pytest

from camoxpert_cli.metrics.image_scores import ImageScores, score_image
from camoxpert_cli.metrics.score_set import SetScores, mean_scores
from tests.unit.metrics.pairs import generated_pair


@pytest.fixture(scope="module")
def scores() -> list[ImageScores]:
    return [score_image(*generated_pair(seed)) for seed in range(23)]


def values(scores: SetScores) -> list[object]:
    return [*scores.measures.values(), *(curve.tolist() for curve in scores.curves.values())]


def test_means(scores: list[ImageScores]) -> None:
    """Each image counts the same."""
    means = mean_scores(scores)

    assert means.images == 23
    for name in ("s_measure", "weighted_f", "mae", "iou", "e_adaptive", "f_mean", "dice_mean", "ber"):
        assert getattr(means, name) == pytest.approx(np.mean([getattr(each, name) for each in scores]), abs=1e-12)
    assert means.curves.keys() == scores[0].curves.keys()
    for name, curve in means.curves.items():
        expected = np.mean([each.curves[name] for each in scores], axis=0)
        assert curve == pytest.approx(expected, abs=1e-12)


def test_maxima_are_of_the_mean_curve(scores: list[ImageScores]) -> None:
    """One threshold for the whole set: the mean of each image's own best is more."""
    means = mean_scores(scores)

    for name, curve in (("e_max", "e"), ("f_max", "f"), ("iou_max", "iou"), ("dice_max", "dice")):
        assert getattr(means, name) == means.curves[curve].max()
        assert getattr(means, name) < np.mean([getattr(each, name) for each in scores])


def test_order_does_not_matter(scores: list[ImageScores]) -> None:
    """Every bit is the same in any order, so that workers and batches change nothing."""
    shuffled = random.Random(0).sample(scores, len(scores))

    assert values(mean_scores(shuffled)) == values(mean_scores(scores))


def test_one_image(scores: list[ImageScores]) -> None:
    """A set of one scores as its image."""
    alone = mean_scores(scores[:1])

    assert alone.measures == scores[0].measures


def test_no_image() -> None:
    """There is no mean of nothing."""
    with pytest.raises(ValueError, match="at least one"):
        mean_scores([])
