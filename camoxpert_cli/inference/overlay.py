"""Draws a prediction on its image, for visual inspection."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Magenta: hardly any animal, plant or soil has this color.
_COLOUR = (255, 0, 200)
_TINT = 0.3
_ROWS = 1024
# The outline's width as a fraction of the image's shorter side; below two pixels OpenCV drops single points.
_OUTLINE = 1 / 250


def overlay(image: NDArray[np.uint8], found: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a copy of the RGB image (H, W, 3), tinted and outlined where `found` (H, W) is true, including holes."""
    drawn = image.copy()
    for start in range(0, len(image), _ROWS):
        rows = drawn[start : start + _ROWS]  # a few rows at a time, because images may have 200 million pixels
        tinted = cv2.addWeighted(rows, 1 - _TINT, np.full_like(rows, _COLOUR), _TINT, 0)
        np.copyto(rows, tinted, where=found[start : start + _ROWS, :, None])
    contours, _ = cv2.findContours(found.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(2, round(min(found.shape) * _OUTLINE))
    return np.asarray(cv2.drawContours(drawn, contours, -1, _COLOUR, width, cv2.LINE_AA), dtype=np.uint8)
