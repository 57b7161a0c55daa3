"""Which pixels belong to a shape."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as reference

from camoxpert_cli.labels.shapes import (
    Points,
    check_runs,
    draw_box,
    draw_ellipse,
    draw_outline,
    draw_pixels,
    draw_polygon,
    pixels_of_runs,
)
from tests.helpers.label_files import Mask, blob, iou, outlines, runs

HEIGHT, WIDTH = 150, 200


def canvas() -> Mask:
    return np.zeros((HEIGHT, WIDTH), np.uint8)


def star(seed: int) -> Points:
    """Corners around a center, which may be near the edge of the image."""
    draw = np.random.default_rng(seed)
    angles = np.sort(draw.uniform(0, 2 * np.pi, draw.integers(3, 15)))
    radii = draw.uniform(25, 70, len(angles))
    center = draw.uniform((60, 60), (WIDTH - 60, HEIGHT - 60))
    return center + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@pytest.mark.parametrize("seed", range(30))
def test_polygons_are_those_of_pycocotools(seed: int) -> None:
    """Which rounds corners to a fifth of a pixel: the two differ in a few pixels along the outline."""
    points = star(seed)
    mask = canvas()
    draw_polygon(mask, points)
    perimeter = np.hypot(*(points - np.roll(points, -1, axis=0)).T).sum()
    expected = reference.decode(reference.merge(reference.frPyObjects([points.ravel().tolist()], HEIGHT, WIDTH)))

    assert set(np.unique(mask)) <= {0, 255}
    assert np.sum(expected != mask // 255) <= 0.25 * perimeter


@pytest.mark.parametrize("seed", range(20))
def test_the_outermost_pixels_of_an_object_belong_to_it(seed: int) -> None:
    """A mask that became a polygon of its outermost pixels is restored, as they are or as shares with six decimals."""
    mask = blob(seed)
    (outline,) = outlines(mask)
    sides = np.array(mask.shape[::-1])
    shares = np.round(np.array(outline) / sides, 6)
    for points in (np.array(outline), shares * sides):
        restored = np.zeros_like(mask)
        draw_polygon(restored, points)

        assert np.array_equal(restored, mask)


@pytest.mark.parametrize("seed", range(10))
def test_points_halfway_between_pixels(seed: int) -> None:
    """As skimage.measure.find_contours returns them: a half in one direction."""
    mask = blob(seed)
    padded = np.pad(mask, 1)
    (outline,), _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = halfway(padded, outline[:, 0]) - 1
    restored = np.zeros_like(mask)
    draw_polygon(restored, points)

    assert iou(restored, mask) > 0.99


def halfway(mask: Mask, outline: NDArray[Any]) -> Points:
    """The middles of the pixel borders between an object and its background, in order along its outline."""
    steps = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
    found: list[tuple[float, float]] = []
    for before, pixel in zip(np.roll(outline, 1, axis=0), outline, strict=True):
        # Around the pixel, from the direction that its predecessor lies in.
        angle = np.arctan2(*(before - pixel)[::-1])
        order = sorted(steps, key=lambda step: (np.arctan2(step[1], step[0]) - angle) % (2 * np.pi))
        for step in reversed(order):
            x, y = pixel + step
            if not mask[y, x]:
                found.append((pixel[0] + step[0] / 2, pixel[1] + step[1] / 2))
    return np.array(found)


def test_centers_decide() -> None:
    """A pixel belongs to the polygon that contains its center; neighbors that share an edge leave no gap."""
    left, right = canvas(), canvas()
    edge = [(60.3, 10.2), (80.9, 140.1)]
    draw_outline(left, np.array([(10.1, 10.2), *edge, (10.1, 140.1)]))
    draw_outline(right, np.array([edge[0], (150.4, 10.2), (150.4, 140.1), edge[1]]))

    assert not (left & right).any()
    assert np.flatnonzero((left | right).any(axis=1)).tolist() == list(range(10, 140))
    assert np.flatnonzero((left | right).all(axis=0)).size == 0
    assert (left | right)[10:140, 10:150].all()
    assert (left | right).sum() == 255 * 130 * 140


def test_boxes() -> None:
    """From corner to corner, in whatever order they are; a whole number is a border between pixels."""
    first, second, turned = canvas(), canvas(), canvas()
    draw_box(first, (10, 20, 30, 60))
    draw_box(second, (30, 60, 10, 20))
    draw_box(turned, (0, 30, 40, 50), 90)

    assert first[20:60, 10:30].all()
    assert first.sum() == 255 * 40 * 20
    assert np.array_equal(first, second)
    assert np.array_equal(first, turned)


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_ellipses(degrees: float) -> None:
    """The pixels whose centers are within, turned clockwise as y points down."""
    mask = canvas()
    draw_ellipse(mask, (90.3, 70.6), (50.5, 20.2), degrees)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    angle = np.deg2rad(degrees)
    along = (x - 90.3) * np.cos(angle) + (y - 70.6) * np.sin(angle)
    across = (y - 70.6) * np.cos(angle) - (x - 90.3) * np.sin(angle)
    expected = (along / 50.5) ** 2 + (across / 20.2) ** 2 <= 1

    assert iou(mask, expected) > 0.995


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=3, max_size=8))
def test_no_polygon_fails(points: list[tuple[float, float]]) -> None:
    """However far out its corners are, and however it crosses itself."""
    draw_polygon(canvas(), np.array(points))


@pytest.mark.parametrize("corner", [(-5, -3), (195, 145), (500, 500), (-500, 10), (50, 60)])
def test_pixels_at_the_edge(corner: tuple[int, int]) -> None:
    """Those outside of the image are cut off."""
    mask, expected = canvas(), np.pad(canvas(), 600)
    pixels = np.random.default_rng(0).random((20, 30)) > 0.5
    draw_pixels(mask, pixels, *corner)
    left, top = corner[0] + 600, corner[1] + 600
    expected[top : top + 20, left : left + 30][pixels] = 255

    assert np.array_equal(mask, expected[600 : 600 + HEIGHT, 600 : 600 + WIDTH])


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_runs(height: int, width: int, data: st.DataObject) -> None:
    """Pixels become runs and pixels again."""
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits, np.uint8).reshape(height, width)

    check_runs(runs(mask), mask.size)
    assert np.array_equal(pixels_of_runs(runs(mask)), mask.ravel())


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 4], "its runs have 7 pixels, expected 10"),
        ([12, -2], "its runs have 10 pixels, expected 10"),
        ([], "its runs have 0 pixels, expected 10"),
    ],
)
def test_runs_of_another_number_of_pixels(lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_runs(lengths, 10)


def test_runs_of_too_many_pixels() -> None:
    """They would fill the memory."""
    with pytest.raises(ValueError, match="expected at most 100000000"):
        check_runs([10**12], 10**12)
