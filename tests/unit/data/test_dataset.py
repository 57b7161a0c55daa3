from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from camoxpert_cli.data.dataset import ScoringImages, TrainingImages, collate_scoring
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_image, read_mask
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import build, jpeg, scene, square_mask, write, write_pairs


def test_training_sample(tmp_path: Path) -> None:
    """A training sample is an image (S, S, 3) and a mask (S, S) of 0 and 1, both uint8 and contiguous."""
    dataset = TrainingImages(write_pairs(tmp_path, 1), 16, seed=0)

    for epoch in range(20):
        image, mask = dataset[epoch, 0]
        assert (image.shape, image.dtype, image.is_contiguous()) == ((16, 16, 3), torch.uint8, True)
        assert (mask.shape, mask.dtype, mask.is_contiguous()) == ((16, 16), torch.uint8, True)
        assert set(mask.flatten().tolist()) == {0, 1}


def test_training_batch(tmp_path: Path) -> None:
    """A training batch stacks samples, channels first in shape and last in memory, as the device takes them."""
    dataset = TrainingImages(write_pairs(tmp_path, 3), 16, seed=0)
    samples = [dataset[0, 2], dataset[0, 0]]

    images, masks = dataset.collate(samples)

    assert (images.shape, images.dtype) == ((2, 3, 16, 16), torch.uint8)
    assert (masks.shape, masks.dtype) == ((2, 1, 16, 16), torch.uint8)
    assert images.permute(0, 2, 3, 1).is_contiguous()
    assert torch.equal(images[1].permute(1, 2, 0), samples[1][0])
    assert torch.equal(masks[0, 0], samples[0][1])


def test_training_batch_without_a_sample(tmp_path: Path) -> None:
    """A batch of no samples has the shape and type of any other."""
    images, masks = TrainingImages(write_pairs(tmp_path, 1), 16, seed=0).collate([])

    assert (images.shape, images.dtype) == ((0, 3, 16, 16), torch.uint8)
    assert (masks.shape, masks.dtype) == ((0, 1, 16, 16), torch.uint8)


def test_training_sample_depends_on_its_key_alone(tmp_path: Path) -> None:
    """The same seed, epoch and index give the same sample, in any order and in any copy of the data set."""
    pairs = write_pairs(tmp_path, 3)
    images, other = TrainingImages(pairs, 16, seed=1), TrainingImages(pairs, 16, seed=1)
    keys = [(epoch, index) for epoch in range(4) for index in range(3)]
    forwards = {key: images[key] for key in keys}
    backwards = {key: other[key] for key in reversed(keys)}

    assert all(torch.equal(a, b) for key in keys for a, b in zip(forwards[key], backwards[key], strict=True))


@pytest.mark.parametrize("what", ["epoch", "seed", "index"])
def test_augmentation_differs(tmp_path: Path, what: str) -> None:
    """Another epoch, seed or index draws another augmentation of the same image."""
    (pair,) = write_pairs(tmp_path, 1)
    seen = {
        TrainingImages([pair] * 30, 16, seed=each if what == "seed" else 0)[
            each if what == "epoch" else 0, each if what == "index" else 0
        ][0]
        .numpy()
        .tobytes()
        for each in range(30)
    }

    # Two in five calls change no colours and few of those have a geometry of their own.
    assert len(seen) > 12


def test_scoring_sample(tmp_path: Path) -> None:
    """A scoring sample is the resized image, the mask at its own size and the index, with nothing random."""
    pairs = write_pairs(tmp_path, 3)
    dataset = ScoringImages(pairs, 16)

    image, mask, index = dataset[1]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), resize_image(read_image(pairs[1].image)[0], 16))
    assert np.array_equal(mask[0].numpy(), read_mask(pairs[1].mask))
    assert mask.shape == (1, 25, 32)
    assert index == 1
    assert all(torch.equal(dataset[2][0], dataset[2][0]) for _ in range(3))


def test_scoring_batch(tmp_path: Path) -> None:
    """A scoring batch stacks the images and keeps masks of different sizes in a list."""
    dataset = ScoringImages(write_pairs(tmp_path, 3), 16)

    images, masks, indices = collate_scoring([dataset[2], dataset[0]])

    assert images.shape == (2, 3, 16, 16)
    assert [mask.shape for mask in masks] == [(1, 26, 32), (1, 24, 32)]
    assert indices.tolist() == [2, 0]


def test_lengths(tmp_path: Path) -> None:
    """Both data sets are as long as their pairs."""
    pairs = write_pairs(tmp_path, 3)

    assert len(TrainingImages(pairs, 16, 0)) == len(ScoringImages(pairs, 16)) == 3


def test_cache_changes_nothing(tmp_path: Path) -> None:
    """Samples from a cache, which may be of more pairs in another order, are those read from the files."""
    pairs = write_pairs(tmp_path, 4)
    # One that is decoded at a quarter of its size.
    large = tmp_path / "large.jpg"
    large.write_bytes(jpeg(scene(0, 120, 150)))
    pairs = (*pairs[:2], Pair("large", large, write(tmp_path / "large.png", square_mask(0, 120, 150))), *pairs[2:])
    cache = build(tmp_path / "cache", pairs[::-1], 16)
    cached, plain = TrainingImages(pairs[1:3], 16, 7, cache), TrainingImages(pairs[1:3], 16, 7)
    scored, scored_plain = ScoringImages(pairs[:3], 16, cache), ScoringImages(pairs[:3], 16)

    for key in [(epoch, index) for epoch in range(8) for index in range(2)]:
        assert all(torch.equal(a, b) for a, b in zip(cached[key], plain[key], strict=True))
    for index in range(3):
        image, mask, number = scored[index]
        assert torch.equal(image, scored_plain[index][0])
        assert torch.equal(mask, scored_plain[index][1])
        assert number == index


def test_cached_images_are_not_read_again(tmp_path: Path) -> None:
    """Training reads neither image nor mask where there is a cache, and scoring no image."""
    pairs = write_pairs(tmp_path, 2)
    cache = build(tmp_path / "cache", pairs, 16)
    for pair in pairs:
        pair.image.unlink()
    _, mask, _ = ScoringImages(pairs, 16, cache)[1]
    for pair in pairs:
        pair.mask.unlink()

    assert mask.shape == (1, 25, 32)
    assert TrainingImages(pairs, 16, 0, cache)[0, 1][0].shape == (16, 16, 3)


@pytest.mark.parametrize("cached", [False, True])
def test_data_sets_can_be_sent_to_workers(tmp_path: Path, cached: bool) -> None:
    """A copy through pickle, as workers that are not forked get it, gives the same samples."""
    pairs = write_pairs(tmp_path, 2)
    dataset = TrainingImages(pairs, 16, seed=0, cache=build(tmp_path, pairs, 16) if cached else None)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301  # written on this line

    assert torch.equal(copy[3, 1][0], dataset[3, 1][0])


def test_scored_mask_of_another_size(tmp_path: Path) -> None:
    """A mask that is off by two pixels, or of another scale, is scored at its own size, and not trained on."""
    pairs = write_pairs(tmp_path, 2)
    whole = resize_image(read_image(pairs[0].image)[0], 16)
    for size in ((22, 32), (48, 64)):
        write(pairs[0].mask, square_mask(0, *size))
        image, mask, _ = ScoringImages(pairs, 16)[0]

        assert mask.shape == (1, *size)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), whole)
        with pytest.raises(DataError, match=f"{size[1]}×{size[0]}"):
            TrainingImages(pairs, 16, 0)[0, 0]


def test_pair_that_does_not_fit(tmp_path: Path) -> None:
    """A mask of another size than its image stops training and scoring alike."""
    pairs = write_pairs(tmp_path, 1)
    write(pairs[0].mask, square_mask(0, 9, 9))

    with pytest.raises(DataError, match="9×9"):
        TrainingImages(pairs, 16, 0)[0, 0]
    with pytest.raises(DataError, match="9×9"):
        ScoringImages(pairs, 16)[0]
