from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_cli.metrics.image_scores import score_image
from camoxpert_cli.metrics.weighted_f import RADIUS, SIGMA
from tests.unit.metrics.pairs import Mask, generated_pair


def by_definition(map_: NDArray[np.float64], mask: Mask) -> float:
    """The measure from its definition, every distance and every weighted mean written out."""
    objects, (height, width) = np.argwhere(mask), mask.shape
    objects = objects[np.lexsort((objects[:, 0], objects[:, 1]))]  # by column, then by row: the first of equals counts
    error = np.abs(map_ - mask)
    spread, weight = error.copy(), np.ones(mask.shape)
    for row, column in np.argwhere(~mask):
        squared = ((objects - (row, column)) ** 2).sum(axis=1)
        spread[row, column] = error[tuple(objects[squared.argmin()])]
        weight[row, column] = 2 - 0.5 ** (np.sqrt(squared.min()) / 5)
    steps = np.arange(-RADIUS, RADIUS + 1)
    kernel = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * SIGMA**2))
    padded = np.pad(spread, RADIUS)
    side = 2 * RADIUS + 1
    smooth = np.array(
        [
            [(padded[row : row + side, column : column + side] * kernel).sum() for column in range(width)]
            for row in range(height)
        ]
    )
    least = np.where(mask, np.minimum(error, smooth / kernel.sum()), error) * weight
    right, wrong = mask.sum() - least[mask].sum(), least[~mask].sum()
    recall, precision = right / mask.sum(), right / (right + wrong)
    return float(2 * recall * precision / (recall + precision))


@pytest.mark.parametrize("seed", range(30))
def test_definition(seed: int) -> None:
    """Cut out, in single precision and with nearest pixels from a table it is what the definition gives."""
    grey, mask = generated_pair(seed, largest=40)
    mask[0, 0] = True

    ours = score_image(grey, mask, stretch=False).weighted_f
    assert ours == pytest.approx(by_definition(grey / 255, mask), abs=2e-7)


def test_far_errors_count_more() -> None:
    """As many wrong pixels weigh more far from the object than beside it, up to twice as much."""
    mask = np.zeros((40, 300), bool)
    mask[10:30, 10:30] = True
    scores = []
    for left in (31, 45, 280):
        grey = mask * np.uint8(255)
        grey[10:30, left : left + 10] = 255
        scores.append(score_image(grey, mask).weighted_f)

    assert scores[0] > scores[1] > scores[2]
    assert scores[2] == pytest.approx(2 / (2 + 2 * 200 / 400), abs=1e-6)


@pytest.mark.parametrize("steps", [1, 5, 30, 60, 100, 110, 111, 150])
def test_weight_of_an_error(steps: int) -> None:
    """One wrong pixel weighs 2 - 0.5^(d / 5) at distance d from an object of one pixel, near and far."""
    mask = np.zeros((9, 170), bool)
    mask[4, 4] = True
    grey = mask * np.uint8(255)
    grey[4, 4 + steps] = 255
    wrong = 2 - 0.5 ** (steps / 5)

    assert score_image(grey, mask).weighted_f == pytest.approx(2 / (2 + wrong), abs=1e-7)
