"""Images as they are embedded in a page: small, and the errors of a map painted over."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.report.content import ShownImage

LONGEST_SIDE = 480
# Told apart with any colour vision, and in grey as well; Okabe and Ito's.
FALSE_ALARM, MISSED = (230, 159, 0), (0, 114, 178)
# A map's object starts at this grey level: 0.5.
_THRESHOLD = 128
_QUALITY = 75
# OpenCV's value for WebP without loss.
_LOSSLESS = 101


def strip(example: ShownImage) -> dict[str, str]:
    """What to show of an image and its data address: image, ground truth, map and errors.

    Raises ValueError where the three do not have the same height and width.
    """
    sizes = example.image.shape[:2], example.mask.shape, example.map.shape
    if len(set(sizes)) > 1:
        raise ValueError(f"{example.name}: picture, mask and map have sizes {', '.join(map(str, sizes))}")
    mask = example.mask.astype(np.uint8) * 255
    return {
        "picture": _embedded(example.image, _QUALITY),
        "ground truth": _embedded(mask, _LOSSLESS),
        "map": _embedded(example.map, _QUALITY),
        "errors": _embedded(errors(example), _QUALITY),
    }


def errors(example: ShownImage) -> NDArray[np.uint8]:
    """The image in grey, uint8 (H, W, 3), bright where the map at 0.5 found the object, and its errors in colour."""
    grey = cv2.cvtColor(example.image, cv2.COLOR_RGB2GRAY)
    found = example.map >= _THRESHOLD
    # Both keep their texture, and the darkest of the one is brighter than the brightest of the other.
    shade = np.where(found & example.mask, 192 + grey // 4, 48 + grey // 2).astype(np.uint8)
    shown = cv2.cvtColor(shade, cv2.COLOR_GRAY2RGB)
    shown[found & ~example.mask] = FALSE_ALARM
    shown[~found & example.mask] = MISSED
    return np.asarray(shown, np.uint8)


def _embedded(pixels: NDArray[Any], quality: int) -> str:
    """A data address of the image (H, W) or (H, W, 3) RGB, shrunk where it is large."""
    scale = LONGEST_SIDE / max(pixels.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    ok, data = cv2.imencode(".webp", ordered, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not ok:
        raise OSError("OpenCV cannot encode WebP pictures")
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}"
