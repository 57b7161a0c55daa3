"""Augmentation of resized images; they stay uint8 and are normalized on the device."""

from __future__ import annotations

import os
import random

import cv2
import numpy as np
from numpy.typing import NDArray

_MIRRORED, _UPSIDE_DOWN, _TURNED = 0.5, 0.2, 0.2  # probabilities
_QUARTER_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


class Augmentation:
    """Random flips, quarter turns and color jitter of a square image and its mask, determined by each call's seed.

    `upright` images are only mirrored left to right.
    """

    def __init__(self, upright: bool = False) -> None:
        self._upright = upright
        # Read when albumentations is imported; without it, albumentations checks online for a newer version. The
        # import takes two seconds, which scoring and prediction can do without.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A

        self._colours = A.Compose([A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, p=0.5)])

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Augment uint8 (S, S, 3) and (S, S), keeping shape and dtype; the same `seed` (>= 0) gives the same result."""
        draw = np.random.default_rng(seed)
        mirrored, upside_down, turned = draw.random(3) < (_MIRRORED, _UPSIDE_DOWN, _TURNED)
        turn = _QUARTER_TURNS[draw.integers(4) if turned else 0]
        if self._upright:
            upside_down, turn = False, None
        image, mask = (_place(pixels, bool(mirrored), bool(upside_down), turn) for pixels in (image, mask))
        # Not set_random_seed, which would start every transform from the same seed.
        self._colours.set_random_state(draw, random.Random(seed))
        return self._colours(image=image)["image"], mask


def _place(pixels: NDArray[np.uint8], mirrored: bool, upside_down: bool, turn: int | None) -> NDArray[np.uint8]:
    """Flips and a quarter turn. albumentations rotates color images through NumPy, which takes ten times as long."""
    if mirrored or upside_down:
        pixels = np.asarray(cv2.flip(pixels, -1 if mirrored and upside_down else int(mirrored)), dtype=np.uint8)
    if turn is not None:
        pixels = np.asarray(cv2.rotate(pixels, turn), dtype=np.uint8)
    return pixels
