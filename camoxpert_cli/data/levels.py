"""Interprets the values of a mask or a prediction as the gray level of each pixel, 0..255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Levels above which a mask's pixel is object in training, and in scoring, where the field's tools (PySODMetrics)
# define it: the two differ only for a level of exactly 128.
OBJECT, SCORED_OBJECT = 127, 128
# How far apart the color channels of a gray pixel may be after JPEG compression, and the share of pixels that may
# exceed that.
_GREY_SPREAD = 24
_MOST_COLOUR = 0.001
# At least so many rows and columns are checked for color: checking all would add a quarter to the reading time.
_SAMPLED = 200
# Masks whose pixels are numbers of classes contain small ones, and programs mark pixels to ignore with the largest: VOC
# has classes up to 20, Cityscapes up to 18.
_LAST_CLASS, IGNORED = 24, 255
_MOST_SHOWN = 5  # values of a file listed in a message


class UnclearError(ValueError):
    """Invalid or ambiguous values in a file; the message completes a sentence that starts with the file name."""


@dataclass(frozen=True)
class Levels:
    """The `grey` levels of a file's pixels, uint8 (H, W), and which are in color, of every `step`th row and column."""

    grey: NDArray[np.uint8]
    from_alpha: bool = False
    coloured: NDArray[np.bool_] | None = None
    step: int = 1

    @property
    def colour(self) -> float:
        """Share of pixels in color; 0 if they are so few that JPEG compression may have caused them."""
        return 0.0 if self.coloured is None else _at_least_some(self.coloured)

    def is_lost(self, above: int) -> bool:
        """Return whether some of the colored pixels are not above a level."""
        if self.coloured is None or not self.colour:
            return False
        return _at_least_some(self.coloured & (self.grey[:: self.step, :: self.step] <= above)) > 0


def levels_of(raw: NDArray[Any]) -> Levels:
    """Compute the levels of pixels as `decode` returns them: any depth, one to four channels, blue first.

    Values are levels of 0..255 if none is above 255, otherwise of 0..65535; floats up to 1 are shares. If a transparent
    image has a single color, its alpha channel is used; otherwise the minimum of gray level and alpha. A constant alpha
    channel is ignored. Raises UnclearError for values below 0, above 65535 or NaN.
    """
    if raw.ndim == 2:
        return Levels(eight_bits(raw))
    colours = eight_bits(raw[..., :3])
    grey = np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    step = max(1, min(grey.shape) // _SAMPLED)
    blue, green, red = cv2.split(np.ascontiguousarray(colours[::step, ::step]))
    spread = cv2.max(cv2.max(blue, green), red) - cv2.min(cv2.min(blue, green), red)
    coloured = np.asarray(spread > _GREY_SPREAD)
    if raw.shape[2] == 4 and raw[..., 3].min() < raw[..., 3].max():
        alpha = eight_bits(raw[..., 3])
        # Gray levels alone cannot decide: several colors may have the same one.
        if (raw[..., :3] == raw[:1, :1, :3]).all():
            return Levels(alpha, from_alpha=True)
        return Levels(np.minimum(grey, alpha), False, coloured & (alpha[::step, ::step] > 0), step)
    return Levels(grey, False, coloured, step)


def foreground_of(raw: NDArray[Any], above: int = OBJECT) -> NDArray[np.bool_]:
    """Compute where a decoded mask is object, bool (H, W).

    Raises UnclearError if a mask that is not blank has no level above `SCORED_OBJECT` and would be read as empty, if a
    colored part would be read as background, if it has different levels but all would be read as object, if it contains
    small levels and 255 but none in between, see `_may_ignore`, and for the same reasons as `levels_of`.
    """
    levels = levels_of(raw)
    low, high = int(levels.grey.min()), int(levels.grey.max())
    if high <= SCORED_OBJECT and (levels.from_alpha or (raw if raw.ndim == 2 else raw[..., :3]).any()):
        raise UnclearError(
            f"contains no value high enough to mark an object, only {_values(raw)}; "
            f"expected 0 and {255 if raw.max() <= 255 else 0xFFFF}"
            + ("; small numbers are usually class indices" if raw.max() <= _LAST_CLASS else "")
        )
    if low > above and high - low > _GREY_SPREAD:
        raise UnclearError(f"contains {_values(raw)}, all of which would be read as object; expected 0 and 255")
    if _may_ignore(levels.grey):
        raise UnclearError(
            f"contains {_values(raw)}: small numbers are usually class indices, and next to them 255 may mark pixels "
            "to ignore instead of an object; expected 0 and 255"
        )
    if levels.is_lost(above):
        raise UnclearError(
            f"contains {_values(raw)}, some of which would be read as background; expected black and white"
        )
    return np.asarray(levels.grey > above)


def _may_ignore(grey: NDArray[np.uint8]) -> bool:
    """Return whether a mask may contain class indices and 255 for pixels to ignore.

    Lossy compression and smooth outlines also cause small levels, but then levels between those and 255 as well.
    """
    if grey.max() != IGNORED:
        return False
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel()
    small, between = counts[1 : _LAST_CLASS + 1].sum(), counts[_LAST_CLASS + 1 : IGNORED].sum()
    return bool(between == 0 and small > _MOST_COLOUR * grey.size)


def _at_least_some(where: NDArray[np.bool_]) -> float:
    """The share that is true; 0 if JPEG compression may have caused it."""
    share = cv2.countNonZero(where.view(np.uint8)) / where.size
    return share if share > _MOST_COLOUR else 0.0


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert values of any dtype to levels 0..255, as described in `levels_of`. Raises UnclearError."""
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8)
    if values.dtype == np.bool_:
        return np.asarray(values, dtype=np.uint8) * 255
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= 0xFFFF:  # also False for NaN
        raise UnclearError(f"contains values from {low:g} to {high:g}, expected 0..255, 0..65535, or floats in 0..1")
    if high <= 1 and np.issubdtype(values.dtype, np.floating):
        return np.rint(values * 255).astype(np.uint8)
    return values.astype(np.uint8) if high <= 255 else (values.astype(np.uint16) >> 8).astype(np.uint8)


def _values(raw: NDArray[Any]) -> str:
    """Describe the distinct values, or colors as (red, green, blue): all, or their number and the largest."""
    if raw.ndim == 2 or (raw.shape[2] == 3 and (raw == raw[..., :1]).all()):
        found = [f"{value:g}" for value in np.unique(raw if raw.ndim == 2 else raw[..., 0])]
        kind = "values"
    else:
        found = [f"({', '.join(f'{value:g}' for value in colour)})" for colour in _colours(raw)]
        kind = "colors"
    shown = found[-_MOST_SHOWN:]
    listed = " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
    return listed if len(shown) == len(found) else f"{len(found)} {kind}, the largest {listed}"


def _colours(raw: NDArray[Any]) -> list[tuple[float, ...]]:
    """The distinct colors, red first, sorted."""
    channels = [raw[..., at].ravel() for at in [2, 1, 0, 3][: raw.shape[2]]]
    if not np.issubdtype(raw.dtype, np.integer):
        return sorted(set(zip(*(channel.tolist() for channel in channels), strict=True)))
    # As one integer each, which sorts ten times as fast; `levels_of` has already rejected values of more than 16 bits.
    codes = np.zeros(channels[0].shape, np.uint64)
    for channel in channels:
        codes = codes * np.uint64(1 << 16) + channel.astype(np.uint64)
    shifts = [16 * at for at in reversed(range(len(channels)))]
    return [tuple(int(code) >> shift & 0xFFFF for shift in shifts) for code in np.unique(codes)]
