from __future__ import annotations

import random
from dataclasses import fields

import numpy as np
import pytest

from camoxpert_cli.metrics.image_scores import Curves, PictureScores, score_picture
from camoxpert_cli.metrics.score_set import SetScores, mean_scores
from tests.metrics.pairs import generated_pair

CURVES = [field.name for field in fields(Curves)]


@pytest.fixture(scope="module")
def scores() -> list[PictureScores]:
    return [score_picture(*generated_pair(seed)) for seed in range(23)]


def values(scores: SetScores) -> list[object]:
    plain = [getattr(scores, field.name) for field in fields(scores) if field.type == "float"]
    return plain + [getattr(scores.curves, name).tolist() for name in CURVES]


def test_means(scores: list[PictureScores]) -> None:
    """Each picture counts the same."""
    means = mean_scores(scores)

    assert means.pictures == 23
    for name in ("s_measure", "weighted_f", "mae", "iou", "e_adaptive", "f_mean", "dice_mean", "ber", "area"):
        assert getattr(means, name) == pytest.approx(np.mean([getattr(each, name) for each in scores]), abs=1e-12)
    for name in CURVES:
        expected = np.mean([getattr(each.curves, name) for each in scores], axis=0)
        assert getattr(means.curves, name) == pytest.approx(expected, abs=1e-12)


def test_maxima_are_of_the_mean_curve(scores: list[PictureScores]) -> None:
    """One threshold for the whole set: the mean of each picture's own best is more."""
    means = mean_scores(scores)

    for name, curve in (("e_max", "e"), ("f_max", "f"), ("iou_max", "iou"), ("dice_max", "dice")):
        assert getattr(means, name) == getattr(means.curves, curve).max()
        assert getattr(means, name) < np.mean([getattr(each, name) for each in scores])


def test_order_does_not_matter(scores: list[PictureScores]) -> None:
    """Every bit is the same in any order, so that workers and batches change nothing."""
    shuffled = random.Random(0).sample(scores, len(scores))

    assert values(mean_scores(shuffled)) == values(mean_scores(scores))


def test_one_picture(scores: list[PictureScores]) -> None:
    """A set of one scores as its picture."""
    alone = mean_scores(scores[:1])

    assert all(
        getattr(alone, field.name) == getattr(scores[0], field.name)
        for field in fields(PictureScores)
        if field.type == "float"
    )


def test_no_picture() -> None:
    """There is no mean of nothing."""
    with pytest.raises(ValueError, match="at least one"):
        mean_scores([])
