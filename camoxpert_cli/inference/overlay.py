"""An image with what was found in it made visible, for people to look at."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Magenta: next to no animal, plant or soil has it.
_COLOUR = (255, 0, 200)
_TINT = 0.3
# The outline's width as a part of the image's shorter side; below two pixels OpenCV leaves out single points.
_OUTLINE = 1 / 250


def overlay(image: NDArray[np.uint8], found: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The RGB image (H, W, 3), a copy, tinted and outlined where `found` (H, W) is true, holes outlined too."""
    tinted = cv2.addWeighted(image, 1 - _TINT, np.full_like(image, _COLOUR), _TINT, 0)
    drawn = np.where(found[..., None], tinted, image).astype(np.uint8)
    contours, _ = cv2.findContours(found.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(2, round(min(found.shape) * _OUTLINE))
    return np.asarray(cv2.drawContours(drawn, contours, -1, _COLOUR, width, cv2.LINE_AA), dtype=np.uint8)
