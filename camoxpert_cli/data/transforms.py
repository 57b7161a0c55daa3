"""Resizing and augmentation; both leave uint8, which the device normalises."""

from __future__ import annotations

import os
import random

import cv2
import numpy as np
from numpy.typing import NDArray

# Unlike INTER_NEAREST, which looks at a pixel's corner, this one looks at its centre, as bilinear resizing does.
_MASK_INTERPOLATION = cv2.INTER_NEAREST_EXACT


class Augmentation:
    """Random flips, quarter turns and colours of a resized picture and its mask, decided by the seed of each call."""

    def __init__(self, img_size: int) -> None:
        # Read when albumentations is imported: it would ask the network for a newer version. The import takes two
        # seconds, which scoring and prediction have no use for.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A

        self.img_size = img_size
        self._pipeline = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.VerticalFlip(p=0.2),
                A.RandomRotate90(p=0.2),
                A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, p=0.5),
            ]
        )

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """uint8 (H, W, 3) and (H, W) -> (S, S, 3) and (S, S); the same `seed` (>= 0) gives the same result."""
        image, mask = resize_pair(image, mask, self.img_size)
        # Not set_random_seed: it starts every transform from the same seed, so that all draw the same number and no
        # picture is ever flipped vertically without being flipped horizontally. Here they share one generator.
        self._pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = self._pipeline(image=image, mask=mask)
        return result["image"], result["mask"]


def resize_image(image: NDArray[np.uint8], img_size: int) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) -> (S, S, 3): means over areas where it shrinks, bilinear where it grows.

    Bilinear shrinking looks at a few of the pixels only and keeps all of their noise.
    """
    shrinks = min(image.shape[:2]) > img_size
    return _resize(image, img_size, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_pair(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], img_size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """uint8 (H, W, 3) and (H, W) -> (S, S, 3) as `resize_image`, and (S, S), nearest: the mask keeps its values."""
    return resize_image(image, img_size), _resize(mask, img_size, _MASK_INTERPOLATION)


def _resize(pixels: NDArray[np.uint8], img_size: int, interpolation: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(pixels, (img_size, img_size), interpolation=interpolation), dtype=np.uint8)
