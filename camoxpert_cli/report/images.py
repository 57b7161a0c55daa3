"""Images embedded in a page: reduced in size, with the errors of a prediction highlighted."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.report.content import ShownImage

LONGEST_SIDE = 480
# Okabe and Ito's colors, distinguishable with any color vision and also in gray.
FALSE_ALARM, MISSED = (230, 159, 0), (0, 114, 178)
# Gray levels from this one on are object: 0.5.
_THRESHOLD = 128
_QUALITY = 75
# OpenCV's value for lossless WebP.
_LOSSLESS = 101


def strip(example: ShownImage) -> dict[str, str]:
    """Return data URLs of an image, its ground truth, its prediction and its errors, by caption.

    Raises ValueError if image, mask and prediction differ in height or width.
    """
    sizes = example.image.shape[:2], example.mask.shape, example.prediction.shape
    if len(set(sizes)) > 1:
        raise ValueError(f"{example.name}: image, mask and prediction have sizes {', '.join(map(str, sizes))}")
    mask = example.mask.astype(np.uint8) * 255
    return {
        "image": _embedded(example.image, _QUALITY),
        "ground truth": _embedded(mask, _LOSSLESS),
        "prediction": _embedded(example.prediction, _QUALITY),
        "errors": _embedded(errors(example), _QUALITY),
    }


def errors(example: ShownImage) -> NDArray[np.uint8]:
    """Draw the errors of a prediction at threshold 0.5, uint8 (H, W, 3): errors in color on the gray image.

    True positives are brightened.
    """
    grey = cv2.cvtColor(example.image, cv2.COLOR_RGB2GRAY)
    found = example.prediction >= _THRESHOLD
    # Both keep their texture, and the darkest of the one is brighter than the brightest of the other.
    shade = np.where(found & example.mask, 192 + grey // 4, 48 + grey // 2).astype(np.uint8)
    shown = cv2.cvtColor(shade, cv2.COLOR_GRAY2RGB)
    shown[found & ~example.mask] = FALSE_ALARM
    shown[~found & example.mask] = MISSED
    return np.asarray(shown, np.uint8)


def _embedded(pixels: NDArray[Any], quality: int) -> str:
    """A data URL of the image (H, W) or (H, W, 3) RGB, reduced in size if it is large."""
    scale = LONGEST_SIDE / max(pixels.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    ok, data = cv2.imencode(".webp", ordered, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not ok:
        raise OSError("OpenCV cannot encode WebP images")
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}"
