"""Decides whether a mask whose size differs from an image can belong to it."""

from __future__ import annotations

# Tools crop or round side lengths to even numbers.
_PIXELS_OFF, _SHARE_OFF = 4, 0.02


def is_same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes (height, width) differ by only a few pixels or have the same aspect ratio."""
    (height, width), (other_height, other_width) = size, other
    if max(abs(height - other_height), abs(width - other_width)) <= _PIXELS_OFF:
        return True
    return abs(height * other_width / (width * other_height) - 1) <= _SHARE_OFF
