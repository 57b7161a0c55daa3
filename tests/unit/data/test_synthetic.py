from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from camoxpert_cli.data import synthetic
from camoxpert_cli.data.synthetic import (
    Cue,
    Recipe,
    Split,
    generate_image,
    image_recipe,
    write_dataset,
)
from camoxpert_cli.errors import DataError

SPLITS: tuple[Split, ...] = get_args(Split)


@cache
def recipes(split: Split) -> list[Recipe]:
    return [image_recipe(3, index, split) for index in range(400)]


@cache
def bins(split: Split) -> list[dict[str, list[float]]]:
    return [bins_of(recipe) for recipe in recipes(split)]


def bins_of(recipe: Recipe) -> dict[str, list[float]]:
    """Where each of a recipe's values lies, in units of bins."""
    textures = (recipe.background, recipe.object)
    octaves = [np.log2(texture.wavelength / synthetic.SHORTEST_WAVELENGTH) for texture in textures]
    return {
        "orientation": [texture.orientation / synthetic.ORIENTATION_STEP for texture in textures],
        "wavelength": [octave * synthetic.BINS_PER_OCTAVE for octave in octaves],
        "contrast": [(recipe.contrast - synthetic.LOWEST_CONTRAST) / synthetic.CONTRAST_STEP],
        "hue": [recipe.hue / synthetic.HUE_STEP],
    }


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    index=st.integers(0, 10**6),
    split=st.sampled_from(SPLITS),
    size=st.integers(synthetic.MIN_SIZE, 100),
)
def test_any_image(seed: int, index: int, split: Split, size: int) -> None:
    """For any arguments: the types and sizes hold, the object is in bounds, and a repetition is identical."""
    image, mask = generate_image(seed, index, split, size)
    again = generate_image(seed, index, split, size)

    assert image.shape == (size, size, 3)
    assert mask.shape == (size, size)
    assert image.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert 0.05 <= (mask > 0).mean() <= 0.30
    assert np.array_equal(image, again[0])
    assert np.array_equal(mask, again[1])


def test_seed_index_and_split_change_the_image() -> None:
    """Any of the three gives another image and another object."""
    arguments: list[tuple[int, int, Split]] = [
        (0, 0, "train"),
        (1, 0, "train"),
        (0, 1, "train"),
        (0, 0, "val"),
    ]
    images = [generate_image(*each, size=64) for each in arguments]

    for part in (0, 1):
        assert len({image[part].tobytes() for image in images}) == 4


def test_object_is_one_piece() -> None:
    """The object is a single connected region."""
    for index in range(15):
        _, mask = generate_image(0, index, "val", 64)
        assert cv2.connectedComponents(mask, connectivity=8)[0] == 2


def test_too_small() -> None:
    """A size that has no room for the textures is refused."""
    with pytest.raises(ValueError, match="at least 48"):
        generate_image(0, 0, "train", 47)


@pytest.mark.parametrize("split", SPLITS)
def test_inside_and_outside_have_the_same_histogram(split: Split) -> None:
    """Grey and each channel are distributed alike inside and outside, but for what the shading leaves.

    The largest difference between the two cumulative histograms is below 0.07 on average (measured: 0.046);
    the means differ by less than 0.05 deviations on average (0.012), so neither side tends to be brighter,
    and the deviations by less than 5 % (1.6 %).
    """
    distances, means, deviations = [], [], []
    for index in range(28):
        image, mask = generate_image(5, index, split, 96)
        for values in (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), *np.moveaxis(image, -1, 0)):
            inside, outside = values[mask > 0], values[mask == 0]
            cumulated = [np.cumsum(np.bincount(v, minlength=256)) / v.size for v in (inside, outside)]
            distances.append(np.abs(cumulated[0] - cumulated[1]).max())
            means.append((inside.mean() - outside.mean()) / outside.std())
            deviations.append(inside.std() / outside.std())

    assert np.mean(distances) < 0.07
    assert abs(np.mean(means)) < 0.05
    assert abs(np.mean(deviations) - 1) < 0.05


@pytest.mark.parametrize("name", ["orientation", "wavelength", "contrast", "hue"])
def test_training_and_validation_textures_are_disjoint(name: str) -> None:
    """Training values lie in even bins and validation values in odd ones, at least a fifth of a bin apart."""
    for parity, split in enumerate(SPLITS):
        for each in bins(split):
            for position in each[name]:
                assert round(position) % 2 == parity
                assert abs(position - round(position)) <= 0.4 + 1e-9


@pytest.mark.parametrize("split", SPLITS)
def test_turning_and_mirroring_stay_within_a_split(split: Split) -> None:
    """The orientation of an image turned by 90 degrees or mirrored is one of the same split."""
    for recipe in recipes(split)[:100]:
        angle = recipe.background.orientation
        for turned in (angle, angle + 90, 180 - angle, 90 - angle):
            assert round(turned % 180 / synthetic.ORIENTATION_STEP) % 2 == SPLITS.index(split)


@pytest.mark.parametrize("split", SPLITS)
def test_object_differs_by_its_cue(split: Split) -> None:
    """Both sides have one pattern, and differ clearly by orientation, scale or both, as the cue says."""
    seen = set()
    for recipe in recipes(split):
        one, other = recipe.background, recipe.object
        turn = abs(one.orientation - other.orientation)
        turn = min(turn, 180 - turn)
        octaves = abs(np.log2(one.wavelength / other.wavelength))
        assert one.pattern == other.pattern
        assert recipe.cue == "scale" or one.pattern != "spots"
        assert turn > 58 if recipe.cue != "scale" else turn < synthetic.ORIENTATION_STEP
        assert octaves > {"orientation": -1, "scale": np.log2(1.8), "both": 0.1}[recipe.cue]
        seen.add((recipe.cue, one.pattern, one.wavelength < other.wavelength))

    assert {cue for cue, _, _ in seen} == set(get_args(Cue))
    assert len(seen) == 14  # every pattern with every cue, finer and coarser inside


def read(path: Path, flags: int) -> NDArray[Any]:
    return np.asarray(cv2.imread(str(path), flags))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_small(folder: Path, seed: int = 1, train: int = 3) -> bool:
    return write_dataset(folder, seed=seed, train=train, test=2, size=48)


def test_layout(tmp_path: Path) -> None:
    """Images and masks lie under the same names, and hold exactly what `generate_image` gives."""
    assert write_small(tmp_path / "new")

    names = [
        "TrainDataset/{}/train_00000.png",
        "TrainDataset/{}/train_00001.png",
        "TrainDataset/{}/train_00002.png",
    ]
    names += ["TestDataset/synthetic/{}/test_00000.png", "TestDataset/synthetic/{}/test_00001.png"]
    expected = {name.format(kind) for name in names for kind in ("Imgs", "GT")} | {"synthetic.json"}
    assert contents(tmp_path / "new").keys() == expected
    splits: list[Split] = ["train", "train", "train", "val", "val"]
    for name, index, split in zip(names, (0, 1, 2, 0, 1), splits, strict=True):
        image, mask = generate_image(1, index, split, 48)
        assert np.array_equal(read(tmp_path / "new" / name.format("Imgs"), cv2.IMREAD_COLOR_RGB), image)
        assert np.array_equal(read(tmp_path / "new" / name.format("GT"), cv2.IMREAD_UNCHANGED), mask)


def test_rerun_reuses(tmp_path: Path) -> None:
    """The same arguments on a complete folder write nothing, whatever hidden files a viewer left there."""
    write_small(tmp_path)
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "TrainDataset" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "TrainDataset" / ".ipynb_checkpoints" / "train_00000-checkpoint.png").touch()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    assert not write_small(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


@pytest.mark.parametrize(
    "change", ["picture missing", "picture more", "manifest missing", "manifest damaged", "seed", "count"]
)
def test_what_is_there_is_left_alone(tmp_path: Path, change: str) -> None:
    """A folder that holds other generated pictures, or not all of these, may be in use: refused as it is."""
    write_small(tmp_path)
    image, manifest = tmp_path / "TrainDataset" / "Imgs" / "train_00001.png", tmp_path / "synthetic.json"
    if change == "picture missing":
        image.unlink()
    elif change == "picture more":
        (image.parent / "train_00003.png").write_bytes(b"mine")
    elif change == "manifest missing":
        manifest.unlink()
    elif change == "manifest damaged":
        manifest.write_bytes(b"\0\xff")
    before = contents(tmp_path)
    with pytest.raises(DataError, match="does not match the dataset to be generated there") as caught:
        write_small(tmp_path, **{"seed": {"seed": 2}, "count": {"train": 1}}.get(change, {}))

    assert "--checkpoint-dir" in caught.value.hint
    assert contents(tmp_path) == before
    assert list(tmp_path.parent.glob(f".{tmp_path.name}*")) == []


def test_pictures_appear_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they are made, and where that is interrupted, there is nothing under the folder's name."""
    folder = tmp_path / "pictures"
    seen: list[bool] = []

    def write(path: Path, pixels: NDArray[Any]) -> None:
        seen.append(folder.exists())
        if len(seen) == 5:
            raise KeyboardInterrupt
        path.parent.mkdir(parents=True, exist_ok=True)

    with monkeypatch.context() as patched:
        patched.setattr(synthetic, "_write", write)
        with pytest.raises(KeyboardInterrupt):
            write_small(folder)
    assert seen == [False] * 5
    assert list(tmp_path.iterdir()) == []

    assert write_small(folder)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_faster_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """What another process made in the meantime is used where it is the same, and stays what it is in any case."""
    folder = tmp_path / "pictures"
    read_json = synthetic._read_json
    write = synthetic._write

    def racing(path: Path, pixels: NDArray[Any]) -> None:
        monkeypatch.setattr(synthetic, "_write", write)
        write_small(folder, seed=seed)
        write(path, pixels)

    monkeypatch.setattr(synthetic, "_write", racing)
    if seed == 1:
        assert not write_small(folder)
    else:
        with pytest.raises(DataError, match="does not match the dataset to be generated"):
            write_small(folder)

    assert read_json(folder / "synthetic.json")["seed"] == seed
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["camourflage_00012.jpg", "train_00000.png", "train_00012.png"])
def test_other_images_are_left_alone(tmp_path: Path, name: str) -> None:
    """A folder with somebody's own images is refused, whatever they are called, and nothing in it changes."""
    own = tmp_path / "TrainDataset" / "Imgs" / name
    own.parent.mkdir(parents=True)
    mine = cv2.imencode(own.suffix, np.zeros((20, 20), np.uint8))[1].tobytes()
    own.write_bytes(mine)

    with pytest.raises(DataError, match="does not match the dataset to be generated there"):
        write_small(tmp_path)
    assert contents(tmp_path) == {f"TrainDataset/Imgs/{name}": mine}


def test_more_than_the_disk_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is written, rather than when the disk is full."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4 * 64**2 * 5 - 1))
    with pytest.raises(DataError, match=r"5 generated images need up to .* but the disk of .* has only .* free"):
        write_dataset(tmp_path / "new", seed=0, train=3, test=2, size=64)

    assert list(tmp_path.iterdir()) == []
