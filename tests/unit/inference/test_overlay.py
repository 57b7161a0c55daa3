from __future__ import annotations

import cv2
import numpy as np
import pytest

from camoxpert_cli.inference.overlay import overlay

GREY = np.full((300, 400, 3), 100, np.uint8)


def square(hole: bool = False) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    found = np.zeros((300, 400), bool)
    found[100:200, 100:200] = True
    found[140:160, 140:160] = not hole
    return found


def strength(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """How far each pixel is from grey: 0 outside, more where it is tinted, most on the outline."""
    return image.max(axis=2).astype(np.int64) - image.min(axis=2)


def test_tint_and_outline() -> None:
    """The object is tinted, its outline far stronger, and the rest of the image as it was."""
    drawn = overlay(GREY, square())
    distance = strength(drawn)

    assert drawn.shape == GREY.shape
    assert drawn.dtype == np.uint8
    assert (drawn[:95] == 100).all()
    assert (drawn[:, 205:] == 100).all()
    assert (distance[110:190, 110:190] == distance[150, 150]).all()
    assert distance[150, 100] > 2 * distance[150, 150] > 100


def test_what_is_under_the_tint_stays_visible() -> None:
    """Two thirds of the contrast within the object are left, so that one sees what was found."""
    image = GREY.copy()
    image[::2] = 160
    drawn = overlay(image, square())

    assert drawn[150, 150, 0] - drawn[151, 150, 0] == pytest.approx(0.7 * 60, abs=1)


def test_the_image_is_not_changed() -> None:
    """Drawing happens on a copy, and where nothing was found the copy is equal."""
    image = GREY.copy()
    overlay(image, square())

    assert np.array_equal(image, GREY)
    assert np.array_equal(overlay(image, np.zeros((300, 400), bool)), GREY)


def test_holes_are_outlined() -> None:
    """The rim of a hole is drawn, its middle is the image."""
    distance = strength(overlay(GREY, square(hole=True)))

    assert distance[150, 150] == 0
    assert distance[150, 139] == distance[150, 100]


@pytest.mark.parametrize("shorter", [20, 1000])
def test_the_outline_grows_with_the_image(shorter: int) -> None:
    """It can be seen when the image fills a screen: three pixels in a small one, five in a large one."""
    image, found = np.zeros((shorter, shorter, 3), np.uint8), np.zeros((shorter, shorter), bool)
    found[: shorter // 2] = True
    column = overlay(image, found)[:, shorter // 2, 0]
    width = int((column[shorter // 4 :] > 200).sum())

    assert width == {20: 3, 1000: 5}[shorter]


def test_one_pixel() -> None:
    """The smallest object and the smallest image are drawn too."""
    drawn = overlay(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), bool))

    assert drawn.max() == 255
    assert cv2.imencode(".jpg", drawn)[0]
