from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from camoxpert_cli.data.dataset import ScoringPictures, TrainingPictures, collate_scoring
from camoxpert_cli.data.reading import read_image, read_mask
from camoxpert_cli.data.transforms import resize_image
from camoxpert_cli.errors import DataError

from .files import square_mask, write, write_pairs


def test_training_sample(tmp_path: Path) -> None:
    """A training sample is a picture (3, S, S) and a mask (1, S, S) of 0 and 1, both uint8 and contiguous."""
    image, mask = TrainingPictures(write_pairs(tmp_path, 1), 16, seed=0)[0, 0]

    assert (image.shape, image.dtype, image.is_contiguous()) == ((3, 16, 16), torch.uint8, True)
    assert (mask.shape, mask.dtype, mask.is_contiguous()) == ((1, 16, 16), torch.uint8, True)
    assert set(mask.flatten().tolist()) == {0, 1}


def test_training_sample_depends_on_its_key_alone(tmp_path: Path) -> None:
    """The same seed, epoch and index give the same sample, in any order and in any copy of the data set."""
    pairs = write_pairs(tmp_path, 3)
    pictures, other = TrainingPictures(pairs, 16, seed=1), TrainingPictures(pairs, 16, seed=1)
    keys = [(epoch, index) for epoch in range(4) for index in range(3)]
    forwards = {key: pictures[key] for key in keys}
    backwards = {key: other[key] for key in reversed(keys)}

    assert all(torch.equal(a, b) for key in keys for a, b in zip(forwards[key], backwards[key], strict=True))


@pytest.mark.parametrize("what", ["epoch", "seed", "index"])
def test_augmentation_differs(tmp_path: Path, what: str) -> None:
    """Another epoch, seed or index draws another augmentation of the same picture."""
    (pair,) = write_pairs(tmp_path, 1)
    seen = {
        TrainingPictures([pair] * 30, 16, seed=each if what == "seed" else 0)[
            each if what == "epoch" else 0, each if what == "index" else 0
        ][0]
        .numpy()
        .tobytes()
        for each in range(30)
    }

    # Two in five calls change no colours and few of those have a geometry of their own.
    assert len(seen) > 12


def test_scoring_sample(tmp_path: Path) -> None:
    """A scoring sample is the resized picture, the mask at its own size and the index, with nothing random."""
    pairs = write_pairs(tmp_path, 3)
    pictures = ScoringPictures(pairs, 16)

    image, mask, index = pictures[1]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), resize_image(read_image(pairs[1].image), 16))
    assert np.array_equal(mask[0].numpy(), read_mask(pairs[1].mask))
    assert mask.shape == (1, 25, 32)
    assert index == 1
    assert all(torch.equal(pictures[2][0], pictures[2][0]) for _ in range(3))


def test_scoring_batch(tmp_path: Path) -> None:
    """A scoring batch stacks the pictures and keeps masks of different sizes in a list."""
    pictures = ScoringPictures(write_pairs(tmp_path, 3), 16)

    images, masks, indices = collate_scoring([pictures[2], pictures[0]])

    assert images.shape == (2, 3, 16, 16)
    assert [mask.shape for mask in masks] == [(1, 26, 32), (1, 24, 32)]
    assert indices.tolist() == [2, 0]


def test_lengths(tmp_path: Path) -> None:
    """Both data sets are as long as their pairs."""
    pairs = write_pairs(tmp_path, 3)

    assert len(TrainingPictures(pairs, 16, 0)) == len(ScoringPictures(pairs, 16)) == 3


def test_data_sets_can_be_sent_to_workers(tmp_path: Path) -> None:
    """A copy through pickle, as workers that are not forked get it, gives the same samples."""
    pictures = TrainingPictures(write_pairs(tmp_path, 2), 16, seed=0)
    copy = pickle.loads(pickle.dumps(pictures))  # noqa: S301  # written on this line

    assert torch.equal(copy[3, 1][0], pictures[3, 1][0])


def test_pair_that_does_not_fit(tmp_path: Path) -> None:
    """A mask of another size than its picture stops training and scoring alike."""
    pairs = write_pairs(tmp_path, 1)
    write(pairs[0].mask, square_mask(0, 9, 9))

    with pytest.raises(DataError, match="9×9"):
        TrainingPictures(pairs, 16, 0)[0, 0]
    with pytest.raises(DataError, match="9×9"):
        ScoringPictures(pairs, 16)[0]
