"""Whether a mask of another size than its image can be its mask."""

from __future__ import annotations

# Tools cut sides to even numbers, or round them.
_PIXELS_OFF, _SHARE_OFF = 4, 0.02


def is_same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (height, width) differ by a few pixels only, or are in one proportion."""
    (height, width), (other_height, other_width) = size, other
    if max(abs(height - other_height), abs(width - other_width)) <= _PIXELS_OFF:
        return True
    return abs(height * other_width / (width * other_height) - 1) <= _SHARE_OFF
