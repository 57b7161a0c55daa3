"""Resizes images and masks to the network's input size."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_image, read_pair

# Unlike INTER_NEAREST, which samples at a pixel's corner, this samples at its center, as bilinear resizing does.
_MASK_INTERPOLATION = cv2.INTER_NEAREST_EXACT


def read_resized(pair: Pair, img_size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the image (S, S, 3) and the mask (S, S) of 0 and 1, uint8: the same with and without a cache.

    Without a mask file, the mask is empty. Raises DataError as `read_pair` does.
    """
    if not pair.has_mask:
        return resize_image(read_image(pair.image, img_size)[0], img_size), np.zeros((img_size, img_size), np.uint8)
    image, mask = read_pair(pair.image, pair.mask, img_size)
    return resize_image(image, img_size), resize_mask(mask, img_size)


def resize_image(image: NDArray[np.uint8], img_size: int) -> NDArray[np.uint8]:
    """Resize an image, uint8 (H, W, 3) -> (S, S, 3): area averaging if it shrinks, bilinear if it hardly does or grows.

    Bilinear shrinking samples only a few of the pixels and keeps all of their noise. If a side shrinks by a factor of
    less than 1.6, it skips few pixels and takes a sixth of the time.
    """
    shorter, longer = sorted(image.shape[:2])
    shrinks = longer > 1.6 * img_size and shorter >= img_size
    return _resize(image, img_size, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_mask(mask: NDArray[np.uint8], img_size: int) -> NDArray[np.uint8]:
    """Resize a mask, uint8 (H, W) -> (S, S), with nearest-neighbor sampling, which keeps its values."""
    return _resize(mask, img_size, _MASK_INTERPOLATION)


def _resize(pixels: NDArray[np.uint8], img_size: int, interpolation: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(pixels, (img_size, img_size), interpolation=interpolation), dtype=np.uint8)
