from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from camoxpert_cli.data.synthetic import write_photographs


def test_photographs(tmp_path: Path) -> None:
    """JPEGs of a photograph's size and of its order of bytes, each another image, with masks of 0 and 255."""
    pairs = write_photographs(tmp_path / "pictures", 2)

    assert [pair.name for pair in pairs] == ["000", "001"]
    for pair in pairs:
        image, mask = cv2.imread(str(pair.image)), cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        assert mask is not None
        assert image.shape == (737, 964, 3)
        assert mask.shape == (737, 964)
        assert set(np.unique(mask)) == {0, 255}
        assert 100_000 < pair.image.stat().st_size < 400_000
    assert pairs[0].image.read_bytes() != pairs[1].image.read_bytes()
