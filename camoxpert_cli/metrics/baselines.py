"""Trivial non-learned segmentation baselines that a trained network must beat.

Every function accepts a sequence of pairs (image, mask): an image is uint8 (H, W, 3) RGB, its mask uint8 (H, W)
with values above 127 on the object; sizes may differ between pairs. Every function returns the mean over
the images of the intersection over union, in [0, 1]. The threshold, its polarity and, if there are several,
the channel, window or filter are those with the best score on the evaluated images themselves, one choice for
the whole set. This deliberately favors the baseline: a network that beats it beats any legitimate use of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Pair = tuple[Image, Image]
Map = NDArray[Any]

LEVELS = 64
WINDOWS = (3, 5, 9, 15, 25)
ORIENTATIONS = 8
WAVELENGTHS = (4.0, 5.7, 8.0, 11.3, 16.0)


def all_foreground_iou(pairs: Sequence[Pair]) -> float:
    """Compute the mean IoU of predicting every pixel as object: the mean area fraction of the objects."""
    _check(pairs)
    return float(np.mean([(mask > 127).mean() for _, mask in pairs]))


def colour_threshold_iou(pairs: Sequence[Pair]) -> float:
    """Compute the best mean IoU of one threshold on gray, red, green, blue, hue or saturation."""
    return _best_over(pairs, [_grey, *(partial(_channel, number=n) for n in range(3)), _hue, _saturation])


def local_variance_iou(pairs: Sequence[Pair]) -> float:
    """Compute the best mean IoU of one threshold on the gray-level variance in a square window of a side in WINDOWS."""
    return _best_over(pairs, [partial(_local_variance, side=side) for side in WINDOWS])


def orientation_energy_iou(pairs: Sequence[Pair]) -> float:
    """Compute the best mean IoU of one threshold on the smoothed energy of one Gabor filter of a fixed bank.

    The bank has ORIENTATIONS directions at each of WAVELENGTHS, in pixels.
    """
    bank = [
        partial(_gabor_energy, wavelength=wavelength, theta=turn * np.pi / ORIENTATIONS)
        for wavelength in WAVELENGTHS
        for turn in range(ORIENTATIONS)
    ]
    return _best_over(pairs, bank)


def best_threshold_iou(maps: Sequence[Map], masks: Sequence[Image]) -> float:
    """Compute the best mean IoU of thresholding each (H, W) feature map with one shared threshold, in either polarity.

    The candidates are the LEVELS - 1 inner quantiles of all values pooled, and the two extremes.
    """
    values = np.concatenate([m.ravel() for m in maps])
    cuts = np.unique(np.quantile(values, np.linspace(0, 1, LEVELS + 1)))
    above = np.zeros((len(maps), len(cuts)))
    below = np.zeros((len(maps), len(cuts)))
    for row, (value, mask) in enumerate(zip(maps, masks, strict=True)):
        inside = mask > 127
        area = int(inside.sum())
        level = np.searchsorted(cuts, value.ravel(), side="right")
        every = np.cumsum(np.bincount(level, minlength=len(cuts) + 1))[:-1]
        hits = np.cumsum(np.bincount(level[inside.ravel()], minlength=len(cuts) + 1))[:-1]
        below[row] = _ratio(hits, every + area - hits)
        above[row] = _ratio(area - hits, value.size - every + hits)
    return float(max(above.mean(axis=0).max(), below.mean(axis=0).max()))


def _ratio(intersection: Map, union: Map) -> Map:
    """Elementwise IoU; an empty union (no object, nothing predicted) counts as 1."""
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)


def _best_over(pairs: Sequence[Pair], features: Iterable[Callable[[Image], Map]]) -> float:
    """The best `best_threshold_iou` over features, each of which converts an image to an (H, W) feature map."""
    _check(pairs)
    masks = [mask for _, mask in pairs]
    return max(best_threshold_iou([feature(image) for image, _ in pairs], masks) for feature in features)


def _check(pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise ValueError("a baseline needs at least one image")


def _grey(image: Image) -> Map:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _channel(image: Image, number: int) -> Map:
    return image[..., number]


def _hue(image: Image) -> Map:
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0]


def _saturation(image: Image) -> Map:
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1]


def _local_variance(image: Image, side: int) -> Map:
    grey = _grey(image)
    return cv2.blur(grey * grey, (side, side)) - cv2.blur(grey, (side, side)) ** 2


def _gabor_energy(image: Image, wavelength: float, theta: float) -> Map:
    """Squared response (H, W) of a quadrature pair of filters, smoothed over half a wavelength."""
    sigma = 0.5 * wavelength
    side = 2 * int(np.ceil(2.5 * sigma)) + 1
    grey = _grey(image)
    energy = np.zeros_like(grey)
    for phase in (0.0, np.pi / 2):
        kernel = cv2.getGaborKernel((side, side), sigma, theta, wavelength, 1.0, phase, cv2.CV_32F)
        energy += cv2.filter2D(grey, -1, kernel - kernel.mean()) ** 2
    return np.asarray(cv2.GaussianBlur(energy, (0, 0), sigma))
