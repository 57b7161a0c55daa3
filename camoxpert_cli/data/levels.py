"""What the values of a mask or a map mean: the grey level of each pixel, 0..255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Levels above which a mask's pixel is trained on as object, and above which it counts as one where maps are scored, as
# in the field's tools (PySODMetrics): they differ for a level of exactly 128.
OBJECT, SCORED_OBJECT = 127, 128
# How far apart the colours of a grey pixel may be, as JPEG leaves them, and the share of pixels that may be further.
_GREY_SPREAD = 24
_MOST_COLOUR = 0.001
_SAMPLED = 200  # colours are looked for in so many rows and columns at least: to look at all takes a quarter of reading
_MOST_SHOWN = 5  # values of a file, in words


class UnclearError(ValueError):
    """The values of a file say nothing, or nothing for sure; the message ends a sentence that began with its name."""


@dataclass(frozen=True)
class Levels:
    """The `grey` levels of a file's pixels, uint8 (H, W), and which of each `step`th row and column were in colour."""

    grey: NDArray[np.uint8]
    from_alpha: bool = False
    coloured: NDArray[np.bool_] | None = None
    step: int = 1

    @property
    def colour(self) -> float:
        """The share of pixels in colour; 0 where they are so few that JPEG may have coloured them."""
        return 0.0 if self.coloured is None else _at_least_some(self.coloured)

    def is_lost(self, above: int) -> bool:
        """Whether some of what is in colour is not above a level."""
        if self.coloured is None or not self.colour:
            return False
        return _at_least_some(self.coloured & (self.grey[:: self.step, :: self.step] <= above)) > 0


def levels_of(raw: NDArray[Any]) -> Levels:
    """The levels of pixels as `decode` gives them: of any depth, one to four channels, blue first.

    Values stand for themselves where none is above 255, otherwise for 65535ths; those of floats up to 1 are shares.
    Of a transparent file in a single colour the alpha channel is read, and of any other transparent one the smaller of
    the grey level and alpha; an alpha channel of a single value says nothing. Raises UnclearError for values that are
    below 0, above 65535, or no numbers.
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
        # Grey levels alone would not tell: those of several colours may be one.
        if (raw[..., :3] == raw[:1, :1, :3]).all():
            return Levels(alpha, from_alpha=True)
        return Levels(np.minimum(grey, alpha), False, coloured & (alpha[::step, ::step] > 0), step)
    return Levels(grey, False, coloured, step)


def foreground_of(raw: NDArray[Any], above: int = OBJECT) -> NDArray[np.bool_]:
    """Where a mask as it was decoded is object, bool (H, W).

    Raises UnclearError where it holds something and nothing above `SCORED_OBJECT`, so that it would be read as empty,
    where a part in colour would be, where it holds different levels and all would be read as object, and as `levels_of`
    does.
    """
    levels = levels_of(raw)
    low, high = int(levels.grey.min()), int(levels.grey.max())
    if high <= SCORED_OBJECT and (levels.from_alpha or (raw if raw.ndim == 2 else raw[..., :3]).any()):
        raise UnclearError(f"holds only {_values(raw)}, expected 0 and {255 if raw.max() <= 255 else 0xFFFF}")
    if low > above and high - low > _GREY_SPREAD:
        raise UnclearError(f"holds {_values(raw)}, and all of it would be read as object: expected 0 and 255")
    if levels.is_lost(above):
        raise UnclearError(f"holds {_values(raw)}, of which some would be read as background: expected no colours")
    return np.asarray(levels.grey > above)


def _at_least_some(where: NDArray[np.bool_]) -> float:
    """The share that is true; 0 where JPEG may have made it."""
    share = cv2.countNonZero(where.view(np.uint8)) / where.size
    return share if share > _MOST_COLOUR else 0.0


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values of any type as 0..255, see `levels_of`, which raises what this does."""
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8)
    if values.dtype == np.bool_:
        return np.asarray(values, dtype=np.uint8) * 255
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= 0xFFFF:  # nor where one is no number
        raise UnclearError(f"holds values from {low:g} to {high:g}, expected 0 to 255, 0 to 65535, or floats up to 1")
    if high <= 1 and np.issubdtype(values.dtype, np.floating):
        return np.rint(values * 255).astype(np.uint8)
    return values.astype(np.uint8) if high <= 255 else (values.astype(np.uint16) >> 8).astype(np.uint8)


def _values(raw: NDArray[Any]) -> str:
    """The different values in words, or colours as (red, green, blue): all, or their number and the largest."""
    if raw.ndim == 2 or (raw.shape[2] == 3 and (raw == raw[..., :1]).all()):
        found = [f"{value:g}" for value in np.unique(raw if raw.ndim == 2 else raw[..., 0])]
        kind = "values"
    else:
        found = [f"({', '.join(f'{value:g}' for value in colour)})" for colour in _colours(raw)]
        kind = "colours"
    shown = found[-_MOST_SHOWN:]
    listed = " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
    return listed if len(shown) == len(found) else f"{len(found)} {kind}, the largest {listed}"


def _colours(raw: NDArray[Any]) -> list[tuple[float, ...]]:
    """The different colours, red first, in order."""
    channels = [raw[..., at].ravel() for at in [2, 1, 0, 3][: raw.shape[2]]]
    if not np.issubdtype(raw.dtype, np.integer):
        return sorted(set(zip(*(channel.tolist() for channel in channels), strict=True)))
    # As one number each, which sorts ten times as fast; `levels_of` has refused what takes more bits.
    codes = np.zeros(channels[0].shape, np.uint64)
    for channel in channels:
        codes = codes * np.uint64(1 << 16) + channel.astype(np.uint64)
    shifts = [16 * at for at in reversed(range(len(channels)))]
    return [tuple(int(code) >> shift & 0xFFFF for shift in shifts) for code in np.unique(codes)]
