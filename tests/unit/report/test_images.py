from __future__ import annotations

import numpy as np

from camoxpert_cli.report.content import ShownImage
from camoxpert_cli.report.images import FALSE_ALARM, MISSED, errors


def test_errors_have_their_colours() -> None:
    """At 0.5 a pixel is a false alarm, missed, or grey: bright where it is found, darker elsewhere."""
    image = np.full((2, 2, 3), 255, np.uint8)
    image[0, 0] = 0
    mask = np.array([[True, False], [True, False]])
    levels = np.array([[128, 128], [127, 127]], np.uint8)
    shown = errors(ShownImage("worst", "name", image, mask, levels, {}))

    assert shown[0, 1].tolist() == list(FALSE_ALARM)
    assert shown[1, 0].tolist() == list(MISSED)
    assert shown[0, 0].tolist() == [192, 192, 192]
    assert shown[1, 1].tolist() == [175, 175, 175]


def test_image_itself_is_not_painted_on() -> None:
    """The error image is one of its own."""
    image = np.full((4, 4, 3), 90, np.uint8)
    errors(ShownImage("worst", "name", image, np.ones((4, 4), bool), np.zeros((4, 4), np.uint8), {}))

    assert (image == 90).all()
