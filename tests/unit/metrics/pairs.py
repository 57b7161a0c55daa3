"""Generated maps and masks: ordinary ones, and all that is odd about the maps and masks people have.

Only arithmetic that every machine and every numpy does alike: golden scores hold for these very pixels.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Grey: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]
Random: TypeAlias = np.random.RandomState  # its stream is frozen, which that of newer generators is not

Choice = TypeVar("Choice")


def generated_pair(seed: int, largest: int = 64) -> tuple[Grey, Mask]:
    """A map uint8 (H, W) and a mask bool (H, W) with sides from 8 to `largest`, small ones more often."""
    random = np.random.RandomState(seed)
    height, width = (int(8 * (largest / 8) ** random.rand()) for _ in range(2))
    mask = _pick(random, MASKS)(random, height, width)
    return _pick(random, MAPS)(random, mask), mask


def ellipses(random: Random, height: int, width: int) -> NDArray[np.float64]:
    """How far within some ellipses each pixel lies: 1 in the middle of one, 0 on its edge, negative outside."""
    rows, columns = np.mgrid[:height, :width]
    depth = np.full((height, width), -np.inf)
    for _ in range(random.randint(1, 4)):
        y, x = random.rand() * height, random.rand() * width
        tall, wide = (0.05 + 0.35 * random.rand()) * height, (0.05 + 0.35 * random.rand()) * width
        depth = np.maximum(depth, 1 - ((rows - y) / tall) ** 2 - ((columns - x) / wide) ** 2)
    return depth


def _blobs(random: Random, height: int, width: int) -> Mask:
    return ellipses(random, height, width) > 0


def _noise(random: Random, height: int, width: int) -> Mask:
    return random.rand(height, width) < random.rand() ** 2


def _stripes(random: Random, height: int, width: int) -> Mask:
    return (np.arange(width) % random.randint(2, 9) == 0) & np.ones((height, 1), bool)


def _last_lines(random: Random, height: int, width: int) -> Mask:
    mask = np.zeros((height, width), bool)
    mask[-random.randint(1, 4) :, random.randint(0, width) :] = True
    return mask


def _one_pixel(random: Random, height: int, width: int) -> Mask:
    mask = np.zeros((height, width), bool)
    mask[random.randint(height), random.randint(width)] = True
    return mask


def _empty(random: Random, height: int, width: int) -> Mask:
    return np.zeros((height, width), bool)


def _full(random: Random, height: int, width: int) -> Mask:
    return np.ones((height, width), bool)


def _soft(random: Random, mask: Mask) -> Grey:
    """Like the mask, moved by some pixels, with soft edges and noise."""
    radius, value = random.randint(0, 5), np.roll(mask, random.randint(-4, 5, 2), (0, 1)).astype(np.float64)
    for axis in (0, 1):
        moved = [np.roll(value, step, axis) for step in range(-radius, radius + 1)]
        value = np.add.reduce(moved) / len(moved)
    return _grey(value + (random.rand(*mask.shape) - 0.5) * random.rand() * 0.4)


def _guess(random: Random, mask: Mask) -> Grey:
    """Objects where none need be."""
    return _grey(ellipses(random, *mask.shape) * random.randint(1, 20) + random.rand())


def _perfect(random: Random, mask: Mask) -> Grey:
    return mask.astype(np.uint8) * 255


def _faint(random: Random, mask: Mask) -> Grey:
    low, high = sorted(random.randint(0, 256, 2))
    return np.where(mask, high, low).astype(np.uint8)


def _inverse(random: Random, mask: Mask) -> Grey:
    return (~mask).astype(np.uint8) * random.randint(1, 256)


def _random(random: Random, mask: Mask) -> Grey:
    return random.randint(0, 256, mask.shape).astype(np.uint8)


def _few_levels(random: Random, mask: Mask) -> Grey:
    return random.choice(random.randint(0, 256, random.randint(2, 5)), mask.shape).astype(np.uint8)


def _constant(random: Random, mask: Mask) -> Grey:
    return np.full(mask.shape, random.choice([0, 1, 127, 128, 255, random.randint(256)]), np.uint8)


def _tie(random: Random, mask: Mask) -> Grey:
    """Half of the pixels, or a quarter, at one level and the others at 0: twice the mean is a level, or half of it."""
    order, level = random.permutation(mask.size).reshape(mask.shape), random.randint(1, 256)
    grey = np.where(order < mask.size // random.choice([2, 4]), level, 0)
    return (
        np.where(order == mask.size - 1, 255, grey).astype(np.uint8) if random.rand() < 0.3 else grey.astype(np.uint8)
    )


def _grey(value: NDArray[np.float64]) -> Grey:
    return np.rint(np.clip(value, 0, 1) * 255).astype(np.uint8)


def _pick(random: Random, weighted: dict[Choice, int]) -> Choice:
    choices = [function for function, weight in weighted.items() for _ in range(weight)]
    return choices[random.randint(len(choices))]


MASKS = {_blobs: 9, _noise: 3, _stripes: 1, _last_lines: 1, _one_pixel: 1, _empty: 1, _full: 1}
MAPS = {
    _soft: 6,
    _guess: 3,
    _perfect: 1,
    _faint: 1,
    _inverse: 1,
    _random: 2,
    _few_levels: 2,
    _constant: 2,
    _tie: 2,
}
