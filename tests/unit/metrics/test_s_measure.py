from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_cli.metrics.histogram import object_box
from camoxpert_cli.metrics.image_scores import score_image
from camoxpert_cli.metrics.s_measure import count_regions
from tests.unit.metrics.counting import drawn
from tests.unit.metrics.pairs import Mask, generated_pair


def by_definition(map_: NDArray[np.float64], mask: Mask) -> float:
    """The measure from its definition, on the pixels themselves."""
    share, aware = mask.mean(), 0.0
    for values, part in ((map_[mask], share), ((1 - map_)[~mask], 1 - share)):
        deviation = values.std(ddof=1) if values.size > 1 else 0
        aware += part * 2 * values.mean() / (values.mean() ** 2 + 1 + deviation) / 2
    y, x = (int(each) + 1 for each in np.argwhere(mask).mean(axis=0).round())
    for box in product((slice(0, y), slice(y, None)), (slice(0, x), slice(x, None))):
        aware += mask[box].size / mask.size * similarity(map_[box], mask[box]) / 2
    return max(0.0, float(aware))


def similarity(map_: NDArray[np.float64], mask: Mask) -> float:
    if mask.size == 0:
        return 0.0
    x, y, freedom = map_.mean(), mask.mean(), max(mask.size - 1, 1)
    spread = (((map_ - x) ** 2).sum() + ((mask - y) ** 2).sum()) / freedom
    if mask.min() == mask.max():
        return float(spread == 0)
    together = ((map_ - x) * (mask - y)).sum() / freedom
    return float(4 * x * y * together / ((x**2 + y**2) * spread + np.spacing(1)))


@pytest.mark.parametrize("seed", range(60))
def test_definition(seed: int) -> None:
    """Counted by regions it is what the definition gives, where maps are flat, too."""
    grey, mask = generated_pair(seed)
    mask[0, 0], mask[-1, -1] = True, False
    ours = score_image(grey, mask, stretch=False).s_measure

    assert ours == pytest.approx(by_definition(grey / 255, mask), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_regions_make_up_the_image(seed: int) -> None:
    """They meet behind the rounded centre of the object, and their counts are those of the whole."""
    grey, mask = generated_pair(seed)
    regions = count_regions(grey, mask, object_box(mask))
    seen = np.zeros(mask.shape, int)
    for region in regions:
        seen[region.box] += 1

    assert (seen == 1).all()
    assert sum(region.foreground.sum() for region in regions) == mask.sum()
    assert sum(region.background.sum() for region in regions) == (~mask).sum()
    if mask.any():
        y, x = (int(each) + 1 for each in np.argwhere(mask).mean(axis=0).round())
        assert (regions[0].box[0].stop, regions[0].box[1].stop) == (y, x)


def test_half_a_pixel_is_rounded_to_the_even_one() -> None:
    """In the whole image, as numpy rounds: 1.5 to 2 and 2.5 to 2, wherever the object begins."""
    stops = [count_regions(*pair, object_box(pair[1]))[0].box[1].stop for pair in (drawn(".MM..."), drawn("..MM.."))]

    assert stops == [3, 3]


def test_centre_in_the_last_row() -> None:
    """Two regions have no pixels, for which PySODMetrics gives NaN: they count nothing."""
    grey, mask = drawn(".......", "..BBM..")

    assert 0 < score_image(grey, mask).s_measure < 1


def test_one_class_alone() -> None:
    """Without an object one minus the mean of the map, without a background the mean."""
    grey = np.array([[0, 51], [102, 255]], np.uint8)

    assert score_image(grey, np.zeros((2, 2), bool)).s_measure == pytest.approx(1 - 1.6 / 4, abs=1e-15)
    assert score_image(grey, np.ones((2, 2), bool)).s_measure == pytest.approx(1.6 / 4, abs=1e-15)
