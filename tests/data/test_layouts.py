from __future__ import annotations

import re
from pathlib import Path

import pytest

from camoxpert_cli.data.layouts import DataSet, Pair, find_data, find_under, pair_folders
from camoxpert_cli.errors import DataError

from .files import SHARED_DATA, needs_shared_data, touch, touch_pairs


def names(data: DataSet) -> tuple[list[str], dict[str, list[str]]]:
    return [pair.name for pair in data.train], {
        name: [pair.name for pair in pairs] for name, pairs in data.tests.items()
    }


@pytest.mark.parametrize(
    ("images", "masks"),
    [("Image", "GT_Object"), ("Imgs", "GT"), ("imgs", "gt"), ("IMAGES", "MASKS"), ("image", "mask")],
)
def test_train_and_test_folders(tmp_path: Path, images: str, masks: str) -> None:
    """COD10K-v3's folders are known under every name in use; the test set is called after the root."""
    root = tmp_path / "COD10K-v3"
    touch_pairs(root / "Train", images, masks, ["a", "b"])
    touch_pairs(root / "Test", images, masks, ["c"])
    touch(root / "Train" / "GT_Edge", ["a.png"])

    assert names(find_data([root])) == (["a", "b"], {"COD10K-v3": ["c"]})


def test_pairs_carry_their_files(tmp_path: Path) -> None:
    """A pair's name is the stem, and its paths lie below the root as it was given."""
    touch_pairs(tmp_path, "Train/Image", "Train/GT_Object", ["x.1"])

    (pair,) = find_data([tmp_path]).train

    folder = tmp_path / "Train"
    assert pair == Pair("x.1", folder / "Image" / "x.1.jpg", folder / "GT_Object" / "x.1.png")


@pytest.mark.parametrize(("train", "test"), [("TrainDataset", "TestDataset"), ("train", "TEST")])
def test_several_test_sets(tmp_path: Path, train: str, test: str) -> None:
    """Each folder below the test folder is a test set of its own name; what holds no pairs is left out by name."""
    touch_pairs(tmp_path / train, "Imgs", "GT")
    touch_pairs(tmp_path / test / "CAMO", "Imgs", "GT", ["c"])
    touch_pairs(tmp_path / test / "CHAMELEON", "Imgs", "GT", ["d"])
    touch(tmp_path / test / "NC4K" / "Imgs", ["e.jpg"])

    data = find_data([tmp_path])

    assert names(data) == (["a", "b"], {"CAMO": ["c"], "CHAMELEON": ["d"]})
    assert f"left out {test}/NC4K, which holds the sub-folders Imgs" in data.description


def test_camo(tmp_path: Path) -> None:
    """CAMO's training and test pictures share one folder of masks."""
    root = tmp_path / "CAMO"
    touch(root / "Images" / "Train", ["a.jpg", "b.jpg"])
    touch(root / "Images" / "Test", ["c.jpg"])
    touch(root / "GT", ["a.png", "b.png", "c.png"])

    assert names(find_data([root])) == (["a", "b"], {"CAMO": ["c"]})


def test_camo_mask_of_neither_split(tmp_path: Path) -> None:
    """A mask in CAMO's shared folder that belongs to no picture of either split is an error."""
    touch(tmp_path / "Images" / "Train", ["a.jpg"])
    touch(tmp_path / "Images" / "Test", ["b.jpg"])
    touch(tmp_path / "GT", ["a.png", "b.png", "c.png"])

    with pytest.raises(DataError, match=r"1 mask \(c\.png\) has no picture"):
        find_data([tmp_path])


@pytest.mark.parametrize("folder", ["Train", "TrainDataset", "Test", "testdataset"])
def test_one_split_given_directly(tmp_path: Path, folder: str) -> None:
    """The folder of one split says by its name what it is, and its test set is called after the folder above."""
    root = tmp_path / "COD10K-v3" / folder
    touch_pairs(root, "Image", "GT_Object")

    expected = (["a", "b"], {}) if "rain" in folder else ([], {"COD10K-v3": ["a", "b"]})
    assert names(find_data([root])) == expected


def test_folder_of_test_sets_given_directly(tmp_path: Path) -> None:
    """`TestDataset` itself holds test sets."""
    touch_pairs(tmp_path / "TestDataset" / "CAMO", "Imgs", "GT")

    assert names(find_data([tmp_path / "TestDataset"])) == ([], {"CAMO": ["a", "b"]})


@pytest.mark.parametrize(("images", "masks"), [("Imgs", "GT"), ("image", "mask")])
def test_single_pair_of_folders(tmp_path: Path, images: str, masks: str) -> None:
    """One pair of folders trains where it is all there is; it is a test set beside others and for scoring."""
    alone, other = tmp_path / "NC4K", tmp_path / "COD10K"
    touch_pairs(alone, images, masks)
    touch_pairs(other / "Train", "Image", "GT_Object", ["c"])

    assert names(find_data([alone])) == (["a", "b"], {})
    assert "name says neither train nor test" in find_data([alone]).description
    assert names(find_data([alone, other])) == (["c"], {"NC4K": ["a", "b"]})
    assert names(find_data([alone], scoring=True)) == ([], {"NC4K": ["a", "b"]})


def test_several_roots(tmp_path: Path) -> None:
    """Training pairs of all roots come together, test sets stay apart, and a root given twice counts once."""
    for root, stem in (("COD10K", "a"), ("CAMO", "b")):
        touch_pairs(tmp_path / root / "Train", "Imgs", "GT", [stem])
        touch_pairs(tmp_path / root / "Test", "Imgs", "GT", [stem])

    data = find_data([tmp_path / "COD10K", tmp_path / "CAMO", tmp_path / "CAMO" / ".." / "CAMO"])

    assert names(data) == (["a", "b"], {"COD10K": ["a"], "CAMO": ["b"]})


def test_extensions(tmp_path: Path) -> None:
    """Extensions count in any case of letters; other files and hidden ones are no pictures."""
    touch(tmp_path / "Imgs", ["a.JPG", "b.jpeg", "c.PNG", "d.bmp", "Thumbs.db", "._a.JPG"])
    touch(tmp_path / "GT", ["a.png", "b.jpg", "c.JPEG", "d.Png", "notes.txt"])
    touch_pairs(tmp_path / "__MACOSX", "Imgs", "GT")

    assert names(find_data([tmp_path])) == (["a", "b", "c", "d"], {})
    assert find_under(tmp_path) == [tmp_path]


def test_non_camouflaged_pictures_are_left_out(tmp_path: Path) -> None:
    """COD10K's pictures without camouflage are left out, with or without masks, and counted."""
    touch_pairs(tmp_path, "Train/Image", "Train/GT_Object", ["COD10K-CAM-1-Aquatic-3-Crab-70"])
    touch_pairs(tmp_path, "Train/Image", "Train/GT_Object", ["COD10K-NonCAM-1-Aquatic-3-Crab-71"])
    touch(tmp_path / "Train" / "Image", ["COD10K-NonCAM-4-Amphibian-67-Frog-2.jpg"])

    data = find_data([tmp_path])

    assert names(data)[0] == ["COD10K-CAM-1-Aquatic-3-Crab-70"]
    assert "left out 2 NonCAM pictures" in data.description


def test_description_is_one_line(tmp_path: Path) -> None:
    """The description counts the pairs of each split and names their folders, on one line."""
    root = tmp_path / "COD10K-v3"
    touch_pairs(root / "Train", "Image", "GT_Object", ["a", "b", "c"])
    touch_pairs(root / "Test", "Image", "GT_Object", ["d"])

    assert find_data([root]).description == (
        f"{root}: 3 training pairs (Train/Image + Train/GT_Object), "
        "1 test pairs of COD10K-v3 (Test/Image + Test/GT_Object)"
    )


def test_pictures_without_masks_and_masks_without_pictures(tmp_path: Path) -> None:
    """Both kinds of lone files are told at once: how many, and the first three."""
    touch(tmp_path / "Imgs", [f"{stem}.jpg" for stem in "abcdef"])
    touch(tmp_path / "GT", ["a.png", "b.png", "z.png"])

    with pytest.raises(DataError) as caught:
        find_data([tmp_path])

    assert "4 pictures (c.jpg, d.jpg, e.jpg, ...) have no mask in" in caught.value.message
    assert "1 mask (z.png) has no picture in" in caught.value.message


@pytest.mark.parametrize("folder", ["Imgs", "GT"])
def test_two_files_of_one_stem(tmp_path: Path, folder: str) -> None:
    """Two pictures or masks of one stem in a folder are an error that names both."""
    touch_pairs(tmp_path, "Imgs", "GT", ["a"])
    touch(tmp_path / folder, ["a.BMP"])

    with pytest.raises(DataError, match=r"two pictures of one name: a\.BMP and a\."):
        find_data([tmp_path])


def test_test_sets_of_one_name(tmp_path: Path) -> None:
    """Two test sets of one name are an error that names both folders."""
    for place in ("x", "y"):
        touch_pairs(tmp_path / place / "TestDataset" / "CAMO", "Imgs", "GT")

    with pytest.raises(DataError, match=r"two test sets are called CAMO: .*x.*y"):
        find_data([tmp_path / "x", tmp_path / "y"])


def test_no_such_folder(tmp_path: Path) -> None:
    """A folder that is not there is named, with the sibling that was probably meant."""
    (tmp_path / "COD10K-v3").mkdir()

    with pytest.raises(DataError, match="there is no folder") as caught:
        find_data([tmp_path / "COD10K-v2"])

    assert "COD10K-v3" in caught.value.hint


def test_archive_in_place_of_a_folder(tmp_path: Path) -> None:
    """A file is refused with the advice to unpack it."""
    touch(tmp_path, ["CAMO.zip"])

    with pytest.raises(DataError, match=re.escape("CAMO.zip is a file")) as caught:
        find_data([tmp_path / "CAMO.zip"])

    assert "unpack" in caught.value.hint


def test_no_folder_given() -> None:
    """An empty list of folders is an error of its own."""
    with pytest.raises(DataError, match="no data set folder was given"):
        find_data([])


def test_unknown_layout_tells_what_is_there(tmp_path: Path) -> None:
    """A folder of no known layout is described by its sub-folders and files, beside the layouts known."""
    touch(tmp_path / "frames", [])
    touch(tmp_path / "labels", [])
    touch(tmp_path, ["a.txt", "b.TXT", "c.csv", "README"])

    with pytest.raises(DataError) as caught:
        find_data([tmp_path])

    assert "the sub-folders frames, labels, 2 .txt, 1 README, 1 .csv" in caught.value.message
    assert "Imgs + GT" in caught.value.hint


@pytest.mark.parametrize("given", [".", "a/b", "a/b/COD10K-v3/Train/Image", "a/b/COD10K-v3/Info"])
def test_unknown_layout_near_a_known_one(tmp_path: Path, given: str) -> None:
    """A folder just above or below a data set leads to it."""
    root = tmp_path / "a" / "b" / "COD10K-v3"
    touch_pairs(root / "Train", "Image", "GT_Object")
    touch(root / "Info", ["names.txt"])
    if given == ".":
        root = root.rename(tmp_path / "COD10K-v3")

    with pytest.raises(DataError) as caught:
        find_data([tmp_path / given])

    expected = root / "Train" if given.endswith("Image") else root
    assert caught.value.hint == f"give {expected}, which is one"


def test_layout_without_pictures(tmp_path: Path) -> None:
    """Known folders without a single pair are an error that tells what they hold."""
    touch(tmp_path / "Imgs", ["a.tif", "b.tif"])
    touch(tmp_path / "GT", [])

    with pytest.raises(DataError, match=r"no pairs .*Imgs holds 2 \.tif; .*GT holds nothing"):
        find_data([tmp_path])


def test_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission is an error for find_data and passed over by find_under."""

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)

    assert find_under(tmp_path) == []
    with pytest.raises(DataError, match="Permission denied"):
        find_data([tmp_path])


def test_split_without_its_folders_is_left_out(tmp_path: Path) -> None:
    """A training folder without masks does not stop the test set from being used, but is told."""
    touch(tmp_path / "Train" / "Image", ["a.jpg"])
    touch_pairs(tmp_path / "Test", "Image", "GT_Object", ["c"])

    data = find_data([tmp_path])

    assert data.train == ()
    assert "left out Train, which holds the sub-folders Image" in data.description


def test_pair_folders_sorts_by_name(tmp_path: Path) -> None:
    """Pairs come in the order of their names, whatever the order in which the files were made."""
    touch_pairs(tmp_path, "pictures", "cutouts", ["c", "a", "b"])

    pairs = pair_folders(tmp_path / "pictures", tmp_path / "cutouts")

    assert [pair.name for pair in pairs] == ["a", "b", "c"]


def test_find_under_depth_and_matches(tmp_path: Path) -> None:
    """Data sets are found down to the depth asked for, and not looked into."""
    deep = tmp_path / "datasets" / "someone" / "cod10k" / "COD10K-v3"
    touch_pairs(deep / "Train", "Image", "GT_Object")
    touch_pairs(deep / "copy", "Imgs", "GT")
    touch_pairs(tmp_path / "NC4K", "Imgs", "GT")

    assert find_under(tmp_path) == [tmp_path / "NC4K", deep]
    assert find_under(tmp_path, depth=3) == [tmp_path / "NC4K"]
    assert find_under(deep, depth=0) == [deep]


def test_find_under_leaves_picture_folders_alone(tmp_path: Path) -> None:
    """Nothing is looked for below a folder full of pictures; a few beside a read-me do not hide a data set."""
    touch(tmp_path / "full", [f"{index}.jpg" for index in range(30)])
    touch_pairs(tmp_path / "full" / "deeper", "Imgs", "GT")
    touch(tmp_path / "few", ["figure.png"])
    touch_pairs(tmp_path / "few" / "data", "Imgs", "GT")

    assert find_under(tmp_path) == [tmp_path / "few" / "data"]


@needs_shared_data
def test_real_data_sets() -> None:
    """Two real data sets are found and read as what they are."""
    cats = find_data([SHARED_DATA / "feral_cats"])
    pictures = find_data([SHARED_DATA / "camouflage_pair"])

    assert (len(cats.train), {name: len(pairs) for name, pairs in cats.tests.items()}) == (400, {"feral_cats": 100})
    assert len(pictures.train) == 2
    assert find_under(SHARED_DATA) == [SHARED_DATA / "camouflage_pair", SHARED_DATA / "feral_cats"]
