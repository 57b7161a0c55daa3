"""Images without an object: found, told apart, and read with an empty mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camoxpert_cli.data.dataset import ScoringImages, TrainingImages
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.data.negatives import apart, read_truth
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_image
from camoxpert_cli.data.resizing import read_resized
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import build, noise, touch, touch_pairs, write, write_pairs


def without_mask(path: Path, seed: int = 5) -> Pair:
    write(path, noise(seed))
    return Pair(path.stem, path, path)


def test_folders_of_negatives(tmp_path: Path) -> None:
    """Images of all folders, each once, sorted by name; they are not training pairs, and the line counts them."""
    touch_pairs(tmp_path / "data", "TrainDataset/Imgs", "TrainDataset/GT")
    touch(tmp_path / "sea", ["b.jpg", "a.png", "notes.txt"])
    touch(tmp_path / "sand", ["a.jpg"])
    folders = [tmp_path / "sea" / ".." / "sea", tmp_path / "sea", tmp_path / "sand"]
    found = find_data([tmp_path / "data"], negatives=folders)

    assert [pair.image.name for pair in found.negatives] == ["a.png", "b.jpg", "a.jpg"]
    assert not any(pair.has_mask for pair in found.negatives)
    assert [pair.name for pair in found.train] == ["a", "b"]
    assert all(pair.has_mask for pair in found.train)
    assert f"{tmp_path / 'sea'}: 2 images without an object; {tmp_path / 'sand'}: 1 image without" in found.description


def test_negatives_to_score(tmp_path: Path) -> None:
    """Each folder is a test set of its name, also without any other."""
    touch(tmp_path / "sea", ["b.jpg", "a.png"])
    found = find_data([], negatives=[tmp_path / "sea"], scoring=True)

    assert {name: [pair.name for pair in pairs] for name, pairs in found.tests.items()} == {"sea": ["a", "b"]}
    assert found.negatives == ()


def test_odd_folders_of_negatives(tmp_path: Path) -> None:
    """A folder without images, one with two of a name, a missing one, and images that have masks are refused."""
    touch_pairs(tmp_path / "data", "TrainDataset/Imgs", "TrainDataset/GT")
    touch(tmp_path / "none", ["notes.txt"])
    touch(tmp_path / "two", ["a.jpg", "a.png"])
    cases = {
        "none": "no images in .*none, a folder of --negatives: skipped 1 .txt file",
        "two": "two images with the same name: a.jpg and a.png",
        "data/TrainDataset/Imgs": "2 images are in both a folder of --negatives and the images with masks",
        "nowhere": "nowhere not found",
    }
    for folder, said in cases.items():
        with pytest.raises(DataError, match=said):
            find_data([tmp_path / "data"], negatives=[tmp_path / folder])


def test_apart(tmp_path: Path) -> None:
    """NonCAM images and those without a mask go by their names; empty masks are found if they are to be read."""
    first, second, third = write_pairs(tmp_path, 3)
    write(second.mask, np.zeros((25, 32), np.uint8))
    unread = Pair("COD10K-NonCAM-3-Flying-0-x", tmp_path / "missing.jpg", tmp_path / "missing.png")
    lone = Pair("lone", tmp_path / "missing.jpg", tmp_path / "missing.jpg")
    pairs = [first, unread, second, third, lone]

    assert apart(pairs, read_masks=False) == ((first, second, third), (unread, lone))
    assert apart(pairs, read_masks=True) == ((first, third), (unread, second, lone))


def test_an_empty_mask_stands_in(tmp_path: Path) -> None:
    """It has the image's size where scores are computed, and the network's in training; with a cache too."""
    pair = without_mask(tmp_path / "lone.png")
    image, mask = read_resized(pair, 64)
    cache = build(tmp_path / "cache", [pair], 64)
    trained = [TrainingImages([pair], 64, 0, each)[3, 0] for each in (None, cache)]
    scored = [ScoringImages([pair], 64, each)[0] for each in (None, cache)]

    assert read_truth(pair).shape == read_image(pair.image)[1] == (24, 32)
    assert not read_truth(pair).any()
    assert (image.shape, mask.shape) == ((64, 64, 3), (64, 64))
    assert not mask.any()
    assert np.array_equal(cache.read(pair)[0], image)
    assert not cache.read(pair)[1].any()
    assert all((own == other).all() for own, other in zip(*trained, strict=True))
    assert not trained[0][1].any()
    assert [tuple(each[1].shape) for each in scored] == [(1, 24, 32), (1, 24, 32)]
    assert (scored[0][0] == scored[1][0]).all()
    assert not scored[0][1].any()
