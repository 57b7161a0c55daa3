from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_cli.data.transforms import Augmentation, resize_image, resize_pair

from .files import noise, square_mask

CALLS = 3000


def corners(height: int = 16, width: int = 16) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture whose top left quarter is white, and a mask of 1 in its top right one."""
    image, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    image[: height // 2, : width // 2] = 255
    mask[: height // 2, width // 2 :] = 1
    return image, mask


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[tuple[int, int], tuple[int, int]], int]:
    """How often each placement of the white quarter and of the mask's quarter comes, over `CALLS` seeds."""
    augmentation = Augmentation(16)
    image, mask = corners()
    counts: dict[tuple[tuple[int, int], tuple[int, int]], int] = {}
    for seed in range(CALLS):
        turned, turned_mask = augmentation(image, mask, seed)
        top, left = (int(each) for each in np.argwhere(turned[..., 0] > 127)[0] // 8)
        mask_top, mask_left = (int(each) for each in np.argwhere(turned_mask)[0] // 8)
        key = ((top, left), (mask_top, mask_left))
        counts[key] = counts.get(key, 0) + 1
    return counts


def test_shapes_and_types() -> None:
    """Any size becomes (S, S, 3) and (S, S) in uint8."""
    image, mask = Augmentation(20)(noise(0, 33, 47), square_mask(0, 33, 47) // 255, seed=0)

    assert image.shape == (20, 20, 3)
    assert mask.shape == (20, 20)
    assert image.dtype == mask.dtype == np.uint8


def test_mask_moves_with_the_picture() -> None:
    """A mask painted into the picture is found there after every augmentation."""
    augmentation = Augmentation(32)
    mask = square_mask(3, 64, 96) // 255
    image = np.dstack([mask * 200] * 3)

    agreement = []
    for seed in range(200):
        moved, moved_mask = augmentation(image, mask, seed)
        agreement.append(np.mean((moved.max(axis=2) > 90) == (moved_mask == 1)))

    # Bilinear and nearest resizing may differ along the outline.
    assert min(agreement) > 0.97


def test_mask_keeps_its_values() -> None:
    """Interpolation and colours never reach the mask: it holds 0 and 1 only."""
    augmentation = Augmentation(23)
    mask = square_mask(1, 50, 41) // 255

    values = {value for seed in range(100) for value in np.unique(augmentation(noise(1, 50, 41), mask, seed)[1])}

    assert values == {0, 1}


def test_same_seed_same_result_after_other_calls() -> None:
    """A call depends on its seed alone, not on the calls before it."""
    augmentation, image, mask = Augmentation(24), noise(0), square_mask(0) // 255
    first = augmentation(image, mask, 5)
    for seed in range(10):
        augmentation(image, mask, seed)
    again, fresh = augmentation(image, mask, 5), Augmentation(24)(image, mask, 5)

    assert all(np.array_equal(a, b) and np.array_equal(a, c) for a, b, c in zip(first, again, fresh, strict=True))


def test_input_is_left_alone() -> None:
    """The arrays given are not written to."""
    image, mask = noise(0, 16, 16), square_mask(0, 16, 16) // 255
    image_before, mask_before = image.copy(), mask.copy()
    augmentation = Augmentation(16)
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

    # Five standard deviations of a count.
    assert all(abs(outcomes.get(key, 0) - CALLS * p) < 5 * (CALLS * p * (1 - p)) ** 0.5 for key, p in expected.items())
    assert sum(outcomes.values()) == CALLS
    assert len(expected) == 8


def test_colours_change_in_half_of_the_calls() -> None:
    """Colours are jittered with probability 0.5, and never by more than their bounds allow."""
    augmentation = Augmentation(8)
    image, mask = np.full((8, 8, 3), 100, np.uint8), np.zeros((8, 8), np.uint8)
    means = [augmentation(image, mask, seed)[0].mean() for seed in range(600)]

    changed = sum(mean != 100 for mean in means)
    assert 240 < changed < 360
    assert 70 < min(means) < 90
    assert 110 < max(means) < 130


def test_resizing_is_bilinear_for_pictures_and_nearest_for_masks() -> None:
    """Halving a picture averages 2x2 pixels, and a mask keeps values that were there, seen from the same centre."""
    image, mask = noise(0, 32, 32), np.arange(9, dtype=np.uint8).reshape(3, 3).repeat(3, 0).repeat(3, 1)

    half, _ = resize_pair(image, np.zeros((32, 32), np.uint8), 16)
    _, third = resize_pair(np.zeros((9, 9, 3), np.uint8), mask, 3)

    average = image.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - average).max() <= 0.5
    assert third.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert np.array_equal(half, resize_image(image, 16))


def test_nearest_looks_at_the_centre() -> None:
    """The pixel kept is the one in the middle, not the one in the corner."""
    mask = np.arange(9, dtype=np.uint8).reshape(3, 3)

    assert resize_pair(np.zeros((3, 3, 3), np.uint8), mask, 1)[1].tolist() == [[4]]


def test_import_is_light_and_quiet() -> None:
    """Resizing imports no albumentations, and augmenting does not let it ask the network."""
    script = (
        "import os, socket, sys\n"
        "os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)\n"
        "socket.getaddrinfo = lambda *_, **__: os._exit(9)\n"
        "from camoxpert_cli.data.transforms import Augmentation\n"
        "assert 'albumentations' not in sys.modules\n"
        "Augmentation(8)\n"
        "assert 'albumentations' in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
