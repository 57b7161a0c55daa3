from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from camoxpert_cli.data.mask_memory import MaskMemory
from camoxpert_cli.data.resizing import read_resized
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import write, write_pairs

# 23 × 23 pixels are no whole number of bytes.
SIZE = 23


def test_every_reading_is_the_same(tmp_path: Path) -> None:
    """The first and every later reading of a pair give what `read_resized` gives, without the mask's file."""
    pairs = write_pairs(tmp_path, 3)
    expected = [read_resized(pair, SIZE) for pair in pairs]
    memory = MaskMemory(3, SIZE)
    readings = [[memory.read(index, pair) for index, pair in enumerate(pairs)]]
    for pair in pairs:
        pair.mask.unlink()
    readings += [[memory.read(index, pair) for index, pair in enumerate(pairs)] for _ in range(2)]

    for reading in readings:
        for (image, mask), (image_expected, mask_expected) in zip(reading, expected, strict=True):
            assert np.array_equal(image, image_expected)
            assert np.array_equal(mask, mask_expected)
            assert mask.dtype == np.uint8


def test_image_that_no_longer_fits(tmp_path: Path) -> None:
    """An image that changed its size while its mask was in memory is still refused."""
    (pair,) = write_pairs(tmp_path, 1)
    memory = MaskMemory(1, SIZE)
    memory.read(0, pair)
    write(pair.image, np.zeros((9, 9, 3), np.uint8))

    with pytest.raises(DataError, match="is 9×9 pixels"):
        memory.read(0, pair)


def test_copy_through_pickle_is_empty(tmp_path: Path) -> None:
    """A worker that is not forked gets a memory without masks, and reads them itself."""
    (pair,) = write_pairs(tmp_path, 1)
    memory = MaskMemory(1, SIZE)
    memory.read(0, pair)
    copy = pickle.loads(pickle.dumps(memory))  # noqa: S301  # written on this line
    write(pair.mask, np.zeros((24, 32), np.uint8))

    assert not copy.read(0, pair)[1].any()
    assert memory.read(0, pair)[1].any()
