"""Augmentation of resized pictures; they stay uint8, which the device normalises."""

from __future__ import annotations

import os
import random

import numpy as np
from numpy.typing import NDArray


class Augmentation:
    """Random flips, quarter turns and colours of a square picture and its mask, decided by the seed of each call."""

    def __init__(self) -> None:
        # Read when albumentations is imported: it would ask the network for a newer version. The import takes two
        # seconds, which scoring and prediction have no use for.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A

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
        """uint8 (S, S, 3) and (S, S) -> the same; the same `seed` (>= 0) gives the same result."""
        # Not set_random_seed: it starts every transform from the same seed, so that all draw the same number and no
        # picture is ever flipped vertically without being flipped horizontally. Here they share one generator.
        self._pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = self._pipeline(image=image, mask=mask)
        return result["image"], result["mask"]
