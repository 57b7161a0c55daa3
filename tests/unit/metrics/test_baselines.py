from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from camoxpert_cli.metrics.baselines import (
    Pair,
    all_foreground_iou,
    best_threshold_iou,
    colour_threshold_iou,
    local_variance_iou,
    orientation_energy_iou,
)

Colour = tuple[int, int, int]
BASELINES = [all_foreground_iou, colour_threshold_iou, local_variance_iou, orientation_energy_iou]
BLACK, WHITE, BLUE, DARK_RED = (0, 0, 0), (255, 255, 255), (0, 0, 255), (97, 0, 0)
MASK = np.zeros((64, 64), np.uint8)
MASK[20:44, 16:40] = 255


def painted(inside: Colour, outside: Colour) -> Pair:
    """A square of one colour on a ground of another."""
    return np.where(MASK[..., None] > 0, np.array(inside), np.array(outside)).astype(np.uint8), MASK


def grey_image(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> Pair:
    """A square of one grey pattern (64, 64) in -1..1 on a ground of another."""
    grey = np.where(MASK > 0, inside, outside) * 100 + 128
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1), MASK


def brute_force(maps: Sequence[NDArray[np.int64]], masks: Sequence[NDArray[np.uint8]]) -> float:
    """The best mean IoU over every threshold between the values of the maps, in both polarities."""
    best = 0.0
    for cut in np.unique(maps):
        for flip in (False, True):
            ious = []
            for value, mask in zip(maps, masks, strict=True):
                found, there = (value >= cut) != flip, mask > 127
                union = (found | there).sum()
                ious.append((found & there).sum() / union if union else 1.0)
            best = max(best, float(np.mean(ious)))
    return best


def test_all_foreground() -> None:
    """It scores the mean share of the object in its image."""
    half = np.zeros((10, 10), np.uint8)
    half[:5] = 255
    whole = np.full((10, 20), 255, np.uint8)

    assert all_foreground_iou([(np.zeros((10, 10, 3), np.uint8), half)]) == 0.5
    assert all_foreground_iou([(np.zeros((*m.shape, 3), np.uint8), m) for m in (half, whole)]) == 0.75


@pytest.mark.parametrize(("inside", "outside"), [(WHITE, BLACK), (BLACK, WHITE), (BLUE, DARK_RED)])
def test_colour_finds_a_coloured_square(inside: Colour, outside: Colour) -> None:
    """A square of another colour is found exactly, lighter, darker or of the same grey."""
    assert colour_threshold_iou([painted(inside, outside)]) == 1.0


def test_one_threshold_for_the_whole_set() -> None:
    """Where one object is the lighter part and the other the darker, only one of two can be found."""
    assert colour_threshold_iou([painted(WHITE, BLACK), painted(BLACK, WHITE)]) == 0.5


def test_variance_finds_noise() -> None:
    """A noisy square on a flat ground is found nearly, and a flat square on a noisy ground as well."""
    noise = np.random.default_rng(0).uniform(-1, 1, (64, 64))
    flat = np.zeros((64, 64))

    assert local_variance_iou([grey_image(noise, flat)]) > 0.8
    assert local_variance_iou([grey_image(flat, noise)]) > 0.8


def test_orientation_finds_turned_stripes() -> None:
    """Stripes across stripes are found by an oriented filter, and not by colour."""
    upright = np.broadcast_to(np.sin(2 * np.pi * np.arange(64) / 8), (64, 64)).astype(np.float64)

    for pair in (grey_image(upright, upright.T), grey_image(upright.T, upright)):
        assert orientation_energy_iou([pair]) > 0.75
        assert colour_threshold_iou([pair]) < 0.3


def test_orientation_looks_at_edges_and_not_at_brightness() -> None:
    """A light square and a dark one are the same to a filter that sees only what changes, and opposite to a colour."""
    pairs = [painted((200, 200, 200), (100, 100, 100)), painted((100, 100, 100), (200, 200, 200))]

    assert orientation_energy_iou(pairs) > 0.9
    assert colour_threshold_iou(pairs) == 0.5


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), values=st.integers(1, 12), images=st.integers(1, 3))
def test_best_threshold_is_the_best(seed: int, values: int, images: int) -> None:
    """Where the maps hold few values, no threshold and polarity does better than the one it takes."""
    rng = np.random.default_rng(seed)
    maps = [np.arange(13 * 13).reshape(13, 13) % values for _ in range(images)]
    likely = [(values - m if seed % 2 else m + 1) / (values + 1) for m in maps]  # darker, or lighter, is the object
    masks = [np.where(rng.random((13, 13)) < each, 255, 0).astype(np.uint8) for each in likely]

    assert best_threshold_iou(maps, masks) == pytest.approx(brute_force(maps, masks))


@pytest.mark.parametrize("level", [0.0, 5.0])
def test_a_flat_map_says_all_or_nothing(level: float) -> None:
    """On a map of one value the best is to call everything the object, or nothing where there is none."""
    flat = np.full(MASK.shape, level)

    assert best_threshold_iou([flat], [MASK]) == (MASK > 0).mean()
    assert best_threshold_iou([flat], [np.zeros_like(MASK)]) == 1.0


@pytest.mark.parametrize("baseline", BASELINES)
def test_no_images(baseline: Callable[[Sequence[Pair]], float]) -> None:
    """Without an image there is no mean."""
    with pytest.raises(ValueError, match="at least one image"):
        baseline([])
