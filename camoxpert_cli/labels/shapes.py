"""Draws shapes into masks, uint8 (H, W), by setting their pixels to 255.

Coordinates are those of annotation tools: pixel (0, 0) covers the square from (0, 0) to (1, 1), and a pixel belongs to
a shape that contains its center, as in pycocotools. Programs that turn masks into polygons count pixels instead: they
write rows and columns of an object's outermost pixels, as cv2.findContours does, or points halfway between these and
the next pixels, as skimage.measure.find_contours does. Such polygons are recognized by their coordinates, which are
all whole, or whole in one direction and halves in the other, and are drawn so that they restore the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.data.reading import MOST_MASK_PIXELS

Mask = NDArray[np.uint8]
Points = NDArray[np.float64]

# Why such a polygon is skipped.
FEW_POINTS = "polygons with fewer than 3 points"

# Six decimals of a share of the side of an image of ten thousand pixels.
_WHOLE = 0.01
# No image is as large, and OpenCV needs long for an outline that leads further away.
_FAR = 1 << 16


def draw_polygon(mask: Mask, points: Points) -> None:
    """Draw a polygon, (N, 2) of x and y, N >= 3; where it overlaps itself, by the even-odd rule."""
    points = np.clip(points, -_FAR, _FAR)
    halves = np.rint(2 * points).astype(np.int64)
    if np.abs(points - halves / 2).max() > _WHOLE:
        draw_outline(mask, points)
    elif not (halves % 2).any():
        cv2.fillPoly(mask, [(halves // 2).astype(np.int32)], 255)
    else:
        is_between = halves.sum(axis=1) % 2 > 0  # one pixel and the next
        draw_outline(mask, points + 0.5 if is_between.mean() > 0.5 else points)


def draw_outline(mask: Mask, points: Points) -> None:
    """Draw the pixels whose centers a polygon contains."""
    height, width = mask.shape
    points = np.clip(points, -_FAR, _FAR)
    ends = np.roll(points, -1, axis=0)
    upper = np.where((points[:, 1] <= ends[:, 1])[:, None], points, ends)
    lower = np.where((points[:, 1] <= ends[:, 1])[:, None], ends, points)
    # Rows whose centers an edge passes; the lower end is not part of an edge, so that no center is passed twice.
    first, last = (np.clip(np.ceil(each[:, 1] - 0.5), 0, height).astype(np.int64) for each in (upper, lower))
    counts = np.maximum(last - first, 0)
    if not counts.any():
        return
    top, bottom = int(first[counts > 0].min()), int(last[counts > 0].max())
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts) + first[edge]
    (x, y), (x_end, y_end) = upper[edge].T, lower[edge].T
    crossing = x + (row + 0.5 - y) * (x_end - x) / (y_end - y)
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    left, right = int(column.min()), int(column.max())
    changes = np.zeros((bottom - top, right - left + 1), np.uint8)
    np.bitwise_xor.at(changes, (row - top, column - left), 1)
    inside = np.bitwise_xor.accumulate(changes, axis=1)[:, :-1]
    mask[top:bottom, left:right][inside > 0] = 255


def draw_box(mask: Mask, corners: tuple[float, float, float, float], degrees: float = 0) -> None:
    """Draw the box between two corners (x, y, x, y), rotated clockwise around its center."""
    left, top, right, bottom = corners
    box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    draw_outline(mask, _rotated(box, box.mean(axis=0), degrees))


def draw_ellipse(mask: Mask, center: tuple[float, float], radii: tuple[float, float], degrees: float = 0) -> None:
    """Draw an ellipse with its center at (x, y) and its radii along x and y, rotated clockwise."""
    # Of so many corners that they are at most a hundredth of a pixel off.
    count = int(np.clip(np.ceil(np.pi * np.sqrt(50 * max(radii))), 16, 10_000))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = np.stack([center[0] + radii[0] * np.cos(angles), center[1] + radii[1] * np.sin(angles)], axis=1)
    draw_outline(mask, _rotated(points, np.array(center), degrees))


def draw_pixels(mask: Mask, pixels: NDArray[np.bool_], left: int = 0, top: int = 0) -> None:
    """Draw an object given as pixels, (h, w), whose upper left one is at column `left` and row `top`."""
    height, width = mask.shape
    rows, columns = (slice(max(0, -start), max(0, most - start)) for start, most in ((top, height), (left, width)))
    inside = pixels[rows, columns]
    y, x = max(0, top), max(0, left)
    mask[y : y + inside.shape[0], x : x + inside.shape[1]][inside] = 255


def check_runs(runs: Sequence[int], count: int) -> None:
    """Raise ValueError unless the lengths of runs are those of `count` pixels."""
    if count > MOST_MASK_PIXELS:
        raise ValueError(f"it has {count} pixels, expected at most {MOST_MASK_PIXELS}")
    if min(runs, default=0) < 0 or sum(runs) != count:
        raise ValueError(f"its runs have {sum(runs)} pixels, expected {count}")


def pixels_of_runs(runs: Sequence[int]) -> NDArray[np.bool_]:
    """Return the pixels that runs of these lengths consist of: first of background, then of object, and so on."""
    return np.repeat(np.arange(len(runs)) % 2 > 0, runs)


def _rotated(points: Points, center: Points, degrees: float) -> Points:
    if not degrees:
        return points
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return center + (points - center) @ turn
