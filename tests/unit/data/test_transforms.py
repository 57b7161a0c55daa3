from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_cli.data import transforms
from camoxpert_cli.data.transforms import Augmentation
from tests.helpers.image_files import noise, square_mask

CALLS = 1200


def corners() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image whose top left quarter is white, and a mask of 1 in its top right one."""
    image, mask = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    image[:8, :8] = 255
    mask[:8, 8:] = 1
    return image, mask


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[tuple[int, int], tuple[int, int]], int]:
    """How often each placement of the white quarter and of the mask's quarter comes, over `CALLS` seeds."""
    augmentation = Augmentation()
    image, mask = corners()
    counts: dict[tuple[tuple[int, int], tuple[int, int]], int] = {}
    for seed in range(CALLS):
        turned, turned_mask = augmentation(image, mask, seed)
        top, left = (int(each) for each in np.argwhere(turned[..., 0] > 127)[0] // 8)
        mask_top, mask_left = (int(each) for each in np.argwhere(turned_mask)[0] // 8)
        key = ((top, left), (mask_top, mask_left))
        counts[key] = counts.get(key, 0) + 1
    return counts


def test_upright() -> None:
    """The white quarter stays at the top; in half of the images it is on the other side."""
    augmentation = Augmentation(upright=True)
    image, mask = corners()
    found = [augmentation(image, mask, seed) for seed in range(300)]
    left = [bool(turned[:8, :8].min() > 127) for turned, _ in found]

    assert all(turned[:8, 8:].min() > 127 for (turned, _), is_left in zip(found, left, strict=True) if not is_left)
    assert all(turned[:8, 8:].all() == is_left for (_, turned), is_left in zip(found, left, strict=True))
    assert 100 < sum(left) < 200


def test_shapes_and_types() -> None:
    """Images (S, S, 3) and masks (S, S) keep their shape, and stay uint8."""
    augmentation = Augmentation()

    for seed in range(50):
        image, mask = augmentation(noise(0, 20, 20), square_mask(0, 20, 20) // 255, seed)

        assert image.shape == (20, 20, 3)
        assert mask.shape == (20, 20)
        assert image.dtype == mask.dtype == np.uint8


def test_mask_moves_with_the_image() -> None:
    """A mask painted into the image is found there after every augmentation."""
    augmentation = Augmentation()
    mask = square_mask(3, 32, 32) // 255
    image = np.dstack([mask * 200] * 3)

    for seed in range(200):
        moved, moved_mask = augmentation(image, mask, seed)
        assert np.array_equal(moved.max(axis=2) > 90, moved_mask == 1)


def test_mask_keeps_its_values() -> None:
    """Colours never reach the mask: it holds 0 and 1 only, as many of each as before."""
    augmentation = Augmentation()
    mask = square_mask(1, 23, 23) // 255

    for seed in range(100):
        moved = augmentation(noise(1, 23, 23), mask, seed)[1]
        assert np.array_equal(np.bincount(moved.ravel()), np.bincount(mask.ravel()))


def test_same_seed_same_result_after_other_calls() -> None:
    """A call depends on its seed alone, not on the calls before it."""
    augmentation, image, mask = Augmentation(), noise(0, 24, 24), square_mask(0, 24, 24) // 255
    first = augmentation(image, mask, 5)
    for seed in range(10):
        augmentation(image, mask, seed)
    again, fresh = augmentation(image, mask, 5), Augmentation()(image, mask, 5)

    assert all(np.array_equal(a, b) and np.array_equal(a, c) for a, b, c in zip(first, again, fresh, strict=True))


def test_input_is_left_alone() -> None:
    """The arrays given are not written to."""
    image, mask = noise(0, 16, 16), square_mask(0, 16, 16) // 255
    image_before, mask_before = image.copy(), mask.copy()
    augmentation = Augmentation()
    for seed in range(50):
        augmentation(image, mask, seed)

    assert np.array_equal(image, image_before)
    assert np.array_equal(mask, mask_before)


def test_geometry_comes_as_often_as_it_should(outcomes: dict[tuple[tuple[int, int], tuple[int, int]], int]) -> None:
    """Flips and quarter turns are drawn independently: each of the eight placements comes in its probability."""
    square = [(0, 0), (0, 1), (1, 1), (1, 0)]  # clockwise

    def place(horizontal: bool, vertical: bool, turns: int) -> tuple[tuple[int, int], tuple[int, int]]:
        def move(corner: tuple[int, int]) -> tuple[int, int]:
            top, left = corner[0] ^ vertical, corner[1] ^ horizontal
            return square[(square.index((top, left)) - turns) % 4]

        return move((0, 0)), move((0, 1))

    expected: dict[tuple[tuple[int, int], tuple[int, int]], float] = {}
    for horizontal, p_horizontal in ((False, 0.5), (True, 0.5)):
        for vertical, p_vertical in ((False, 0.8), (True, 0.2)):
            for turns, p_turns in ((0, 0.85), (1, 0.05), (2, 0.05), (3, 0.05)):
                key = place(horizontal, vertical, turns)
                expected[key] = expected.get(key, 0.0) + p_horizontal * p_vertical * p_turns

    # Three and a half standard deviations of a count; the seeds are the same each time.
    assert all(
        abs(outcomes.get(key, 0) - CALLS * p) < 3.5 * (CALLS * p * (1 - p)) ** 0.5 for key, p in expected.items()
    )
    assert sum(outcomes.values()) == CALLS
    assert len(expected) == 8


def test_colours_change_in_half_of_the_calls() -> None:
    """Colours are jittered with probability 0.5, and never by more than their bounds allow."""
    augmentation = Augmentation()
    image, mask = np.full((8, 8, 3), 100, np.uint8), np.zeros((8, 8), np.uint8)
    means = [augmentation(image, mask, seed)[0].mean() for seed in range(600)]

    changed = sum(mean != 100 for mean in means)
    assert 240 < changed < 360
    assert 70 < min(means) < 90
    assert 110 < max(means) < 130


STAND_IN = """
import os
quiet_when_imported = os.environ.get("NO_ALBUMENTATIONS_UPDATE")
Compose = ColorJitter = lambda *arguments, **settings: None
"""


def test_import_is_light_and_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring, which augments nothing, imports no albumentations; augmenting does not let it ask the network.

    It reads that when it is imported, so here another module is in its place.
    """
    (tmp_path / "albumentations.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    # Set first, so that what this test leaves behind goes with it also where there was nothing before.
    monkeypatch.setitem(sys.modules, "albumentations", transforms)
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "0")
    del sys.modules["albumentations"], os.environ["NO_ALBUMENTATIONS_UPDATE"]
    specification = importlib.util.spec_from_file_location("transforms_anew", transforms.__file__)
    assert specification is not None
    assert specification.loader is not None
    anew = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(anew)
    assert "albumentations" not in sys.modules
    anew.Augmentation()

    assert sys.modules["albumentations"].quiet_when_imported == "1"
