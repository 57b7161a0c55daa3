from __future__ import annotations

from pathlib import Path

import cv2

from camoxpert_cli.report.curves import write_training_curves
from tests.helpers.example_report import MEASURES, example_history


def test_image(tmp_path: Path) -> None:
    """A PNG of four charts; it says nothing of when and with what it was made, and nothing is left beside it."""
    write_training_curves(tmp_path / "a.png", example_history(5), MEASURES)
    image = cv2.imread(str(tmp_path / "a.png"))

    assert image is not None
    assert image.shape == (1100, 1440, 3)
    assert image.std() > 10
    assert b"tEXt" not in (tmp_path / "a.png").read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]
