from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_pair
from camoxpert_cli.data.resizing import read_resized, resize_image, resize_mask
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import jpeg, noise, scene, square_mask, with_exif, write


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrinking_an_image_averages(factor: int) -> None:
    """A pixel of an image that shrinks is the mean of all pixels that it covers."""
    image = noise(0, 12 * factor, 12 * factor)

    average = image.reshape(12, factor, 12, factor, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(image, 12) - average).max() <= 0.5


def test_growing_an_image_is_bilinear() -> None:
    """An image that grows runs evenly from one pixel's centre to the next."""
    image = np.array([[0, 100], [0, 100]], np.uint8)

    grown = resize_image(np.dstack([image] * 3), 4)

    assert grown.shape == (4, 4, 3)
    assert grown.dtype == np.uint8
    assert np.array_equal(grown[..., 0], [[0, 25, 75, 100]] * 4)


def test_an_image_that_grows_on_one_side_is_bilinear() -> None:
    """Means over areas, which only an image that shrinks on both sides has, would repeat the rows of this one."""
    image = noise(0, 6, 60)

    resized = resize_image(image, 12)

    assert np.array_equal(resized, cv2.resize(image, (12, 12), interpolation=cv2.INTER_LINEAR))


def test_a_mask_keeps_its_values() -> None:
    """A mask is resized to the nearest pixel: it holds no value that was not there."""
    mask = np.arange(9, dtype=np.uint8).reshape(3, 3).repeat(3, 0).repeat(3, 1)

    assert resize_mask(mask, 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert set(np.unique(resize_mask(square_mask(0, 50, 41) // 255, 23))) == {0, 1}


def test_nearest_looks_at_the_centre() -> None:
    """The pixel kept is the one in the middle, not the one in the corner."""
    mask = np.arange(9, dtype=np.uint8).reshape(3, 3)

    assert resize_mask(mask, 1).tolist() == [[4]]


@pytest.mark.parametrize("size", [(33, 47), (90, 41), (20, 20), (150, 200)])
def test_read_resized(tmp_path: Path, size: tuple[int, int]) -> None:
    """Any pair becomes an image (S, S, 3) and a mask (S, S) of 0 and 1 in uint8, whose halves lie where they lay."""
    left = np.zeros(size, np.uint8)
    left[:, : size[1] // 2] = 255
    pair = Pair("a", write(tmp_path / "a.jpg", np.dstack([left] * 3)), write(tmp_path / "a.png", left))

    image, mask = read_resized(pair, 20)

    assert image.shape == (20, 20, 3)
    assert mask.shape == (20, 20)
    assert image.dtype == mask.dtype == np.uint8
    assert np.array_equal(image[:, [0, 7, 12, 19]].mean(axis=2) > 127, [[True, True, False, False]] * 20)
    assert np.array_equal(mask[:, [0, 7, 12, 19]], [[1, 1, 0, 0]] * 20)


def test_read_resized_follows_the_mask(tmp_path: Path) -> None:
    """The image is resized as `read_pair` turns it for its mask."""
    (tmp_path / "a.jpg").write_bytes(with_exif(jpeg(scene(0, 96, 128)), 6))
    for size in ((96, 128), (128, 96)):
        pair = Pair("a", tmp_path / "a.jpg", write(tmp_path / "a.png", square_mask(0, *size)))
        image, mask = read_pair(pair.image, pair.mask, 20)

        resized, resized_mask = read_resized(pair, 20)

        assert image.shape[:2] == (size[0] // 4, size[1] // 4)
        assert np.array_equal(resized, resize_image(image, 20))
        assert np.array_equal(resized_mask, resize_mask(mask, 20))


def test_pair_that_does_not_fit(tmp_path: Path) -> None:
    """A mask of another size than its image is refused before both become one size."""
    pair = Pair("a", write(tmp_path / "a.jpg", noise(0, 96, 128)), write(tmp_path / "a.png", square_mask(0, 96, 127)))

    with pytest.raises(DataError, match="127×96"):
        read_resized(pair, 20)
