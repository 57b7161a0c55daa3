from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from camoxpert_cli.data.layouts import IMAGE_SUFFIXES, DataSet, find_data, find_under, list_files, pair_folders
from camoxpert_cli.data.pairs import Pair, write_list
from camoxpert_cli.data.reading import read_image, read_mask
from camoxpert_cli.errors import DataError
from tests.helpers.image_files import needs_shared_data, touch, touch_pairs
from tests.helpers.places import SHARED_DATA


def names(data: DataSet) -> tuple[list[str], dict[str, list[str]]]:
    return [pair.name for pair in data.train], {
        name: [pair.name for pair in pairs] for name, pairs in data.tests.items()
    }


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        *(("Image", "GT_Object"), ("Imgs", "GT"), ("imgs", "gt"), ("IMAGES", "MASKS"), ("image", "mask")),
        *(("im", "gt"), ("Image", "Mask"), ("imgs", "masks"), ("images", "labels"), ("Images", "Label")),
    ],
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
    assert f"skipped {test}/NC4K, which contains the subfolder Imgs" in data.description


VAL_FOLDERS = ["val", "Val", "VALID", "validation", "ValDataset", "ValidationDataset"]


@pytest.mark.parametrize("val", VAL_FOLDERS)
def test_validation_folder(tmp_path: Path, val: str) -> None:
    """A folder for validation beside those for training and tests is validated on; to be scored on it is asked for."""
    for part, name in (("train", "a"), (val, "v"), ("test", "t")):
        touch_pairs(tmp_path / "D" / part, "Imgs", "GT", [name])
    data, scored = find_data([tmp_path / "D"]), find_data([tmp_path / "D"], scoring=True)
    alone = find_data([tmp_path / "D" / val], scoring=True)

    assert names(data) == names(scored) == (["a"], {"D": ["t"]})
    assert [pair.name for pair in data.validation] == ["v"]
    assert f"1 validation pair ({val}/Imgs + {val}/GT)" in data.description
    assert names(alone) == ([], {"D": ["v"]})
    assert alone.validation == ()


@pytest.mark.parametrize("val", VAL_FOLDERS)
@pytest.mark.parametrize("masks", ["GT", "GT/{}"])
def test_validation_folder_of_images(tmp_path: Path, val: str, masks: str) -> None:
    """As CAMO's folders are, within one of images: with one folder of masks, or one for each."""
    for part, name in (("Train", "a"), (val, "v"), ("Test", "t")):
        touch_pairs(tmp_path / "D", f"Images/{part}", masks.format(part), [name])
    data = find_data([tmp_path / "D"])

    assert names(data) == (["a"], {"D": ["t"]})
    assert [pair.name for pair in data.validation] == ["v"]


def test_validation_folder_without_pairs(tmp_path: Path) -> None:
    """It is told."""
    touch_pairs(tmp_path / "train", "Imgs", "GT")
    touch(tmp_path / "val", ["a.jpg"])

    assert "skipped val, which contains 1 .jpg" in find_data([tmp_path]).description


def test_explicit_validation_folders(tmp_path: Path) -> None:
    """Folders of any names are validated on where they are given for that, and never trained on as well."""
    touch_pairs(tmp_path / "D" / "train", "Imgs", "GT", ["a"])
    touch_pairs(tmp_path, "photos", "cutouts", ["v"])
    data = find_data([tmp_path / "D"], validation=[(tmp_path / "photos", tmp_path / "cutouts")])

    assert [pair.name for pair in data.train] == ["a"]
    assert [pair.name for pair in data.validation] == ["v"]
    train = tmp_path / "D" / "train"
    with pytest.raises(
        DataError, match=r"1 image is in both the training and the validation data, for example .*a\.jpg"
    ):
        find_data([tmp_path / "D"], validation=[(train / "Imgs", train / "GT")])
    with pytest.raises(DataError, match="was given as the folder of both images and masks") as caught:
        find_data([tmp_path / "D"], validation=[(tmp_path / "photos", tmp_path / "photos")])
    assert "--val-masks" in caught.value.hint


@pytest.mark.parametrize("name", ["validation", "Validation", "VALIDATION"])
def test_test_set_called_validation(tmp_path: Path, name: str) -> None:
    """It gets another name than the pictures that a run validates on, from a folder and from a list."""
    touch_pairs(tmp_path / "TrainDataset", "Imgs", "GT")
    touch_pairs(tmp_path / "TestDataset" / name, "Imgs", "GT", ["c"])
    found = find_data([tmp_path])
    write_list(tmp_path / "list.json", found.train, {name: found.tests[f"{name}-test"]})

    assert list(found.tests) == list(find_data([tmp_path / "list.json"]).tests) == [f"{name}-test"]


@pytest.mark.parametrize("as_list", [False, True])
def test_test_sets_whose_names_are_one_on_some_disks(tmp_path: Path, as_list: bool) -> None:
    """CAMO and Camo would be one folder of maps: that is an error."""
    for place, name in (("x", "CAMO"), ("y", "Camo")):
        touch_pairs(tmp_path / place / "TestDataset" / name, "Imgs", "GT")
    roots = [tmp_path / "x", tmp_path / "y"]
    if as_list:
        tests = {name: pairs for root in roots for name, pairs in find_data([root]).tests.items()}
        write_list(tmp_path / "list.json", [], tests)
        roots = [tmp_path / "list.json"]

    with pytest.raises(DataError, match=r"two test sets are named CAMO and Camo: .*x.*y"):
        find_data(roots)


# 16 pixels each way, white in the middle half.
GIF = (
    "R0lGODdhEAAQAIEAAAAAAP///wAAAAAAACwAAAAAEAAQAEAIMAABCBxIsGDBAAgTIjQoUKFChhAjSjToMCHEigsnatzI8SDGix8ZYgwAsmLHkwUD"
    "AgA7"
)


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES - {".jp2"}))
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    """What a folder is searched for is what OpenCV reads here, as an image and as a mask."""
    pixels = np.zeros((16, 16, 3) if suffix == ".ppm" else (16, 16), np.uint8)
    pixels[4:12, 4:12] = 255
    # OpenCV writes no GIF of two colours.
    content = base64.b64decode(GIF) if suffix == ".gif" else cv2.imencode(suffix, pixels)[1].tobytes()
    (tmp_path / f"a{suffix}").write_bytes(content)

    assert cv2.haveImageReader(str(tmp_path / f"a{suffix}"))
    assert read_image(tmp_path / f"a{suffix}")[1] == (16, 16)
    assert read_mask(tmp_path / f"a{suffix}")[4:12, 4:12].all()
    assert read_mask(tmp_path / f"a{suffix}").mean() < 0.3


def test_files_that_are_passed_over_are_told(tmp_path: Path) -> None:
    """Their endings and numbers are in the description, and beside what is missing because of them."""
    touch_pairs(tmp_path, "Imgs", "GT", ["a"])
    touch(tmp_path / "Imgs", ["b.heic", "c.HEIC", "notes.txt"])
    told = "skipped 2 .heic files, 1 .txt file (not readable by OpenCV; convert images to PNG or JPEG)"
    assert told in find_data([tmp_path]).description

    touch(tmp_path / "GT", ["b.png"])
    with pytest.raises(DataError, match=rf"1 mask \(b\.png\) has no image in .*; {re.escape(told)}"):
        find_data([tmp_path])


def test_folders_beside_that_say_nothing(tmp_path: Path) -> None:
    """Pairs whose folder is none of the known parts are named, instead of being passed over."""
    for part in ("train", "test", "extra"):
        touch_pairs(tmp_path / part, "Imgs", "GT", ["a"])
    (tmp_path / "notes").mkdir()

    assert "skipped extra, which is not a train, validation or test folder" in find_data([tmp_path]).description
    assert "notes" not in find_data([tmp_path]).description


def test_folders_that_are_there_twice(tmp_path: Path) -> None:
    """One of two folders of images, or of masks, is taken, and the other is named; so is a part beside the pairs."""
    touch_pairs(tmp_path, "Imgs", "GT", ["a"])
    for name in ("imgs", "Masks", "TestDataset", "overlays"):
        (tmp_path / name).mkdir()
    described = find_data([tmp_path]).description

    assert all(
        f"skipped {name}, because Imgs and GT are used" in described for name in ("imgs", "Masks", "TestDataset")
    )
    assert "overlays" not in described


def test_hint_names_the_flags_for_other_folders(tmp_path: Path) -> None:
    """Where nothing is known, the flags for folders of any names are told."""
    touch(tmp_path / "frames", ["a.jpg"])

    with pytest.raises(DataError) as caught:
        find_data([tmp_path])
    assert "--images DIR --masks DIR" in caught.value.hint


def test_camo(tmp_path: Path) -> None:
    """CAMO's training and test images share one folder of masks."""
    root = tmp_path / "CAMO"
    touch(root / "Images" / "Train", ["a.jpg", "b.jpg"])
    touch(root / "Images" / "Test", ["c.jpg"])
    touch(root / "GT", ["a.png", "b.png", "c.png"])

    assert names(find_data([root])) == (["a", "b"], {"CAMO": ["c"]})


def test_camo_mask_of_neither_split(tmp_path: Path) -> None:
    """A mask in CAMO's shared folder that belongs to no image of either split is an error."""
    touch(tmp_path / "Images" / "Train", ["a.jpg"])
    touch(tmp_path / "Images" / "Test", ["b.jpg"])
    touch(tmp_path / "GT", ["a.png", "b.png", "c.png"])

    with pytest.raises(DataError, match=r"1 mask \(c\.png\) has no image"):
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
    assert "named neither train nor test" in find_data([alone]).description
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
    """Extensions count in any case of letters; other files and hidden ones are no images."""
    touch(tmp_path / "Imgs", ["a.JPG", "b.jpeg", "c.PNG", "d.bmp", "Thumbs.db", "._a.JPG"])
    touch(tmp_path / "GT", ["a.png", "b.jpg", "c.JPEG", "d.Png", "notes.txt"])
    touch_pairs(tmp_path / "__MACOSX", "Imgs", "GT")

    assert names(find_data([tmp_path])) == (["a", "b", "c", "d"], {})
    assert find_under(tmp_path) == [tmp_path]


def test_non_camouflaged_images_are_left_out(tmp_path: Path) -> None:
    """COD10K's images without camouflage are left out, with or without masks, and counted."""
    touch_pairs(tmp_path, "Train/Image", "Train/GT_Object", ["COD10K-CAM-1-Aquatic-3-Crab-70"])
    touch_pairs(tmp_path, "Train/Image", "Train/GT_Object", ["COD10K-NonCAM-1-Aquatic-3-Crab-71"])
    touch(tmp_path / "Train" / "Image", ["COD10K-NonCAM-4-Amphibian-67-Frog-2.jpg"])

    data = find_data([tmp_path])

    assert names(data)[0] == ["COD10K-CAM-1-Aquatic-3-Crab-70"]
    assert "skipped 2 NonCAM images" in data.description


def test_non_camouflaged_images_that_are_asked_for(tmp_path: Path) -> None:
    """With `include_noncam` COD10K's images without camouflage are pairs like any other."""
    camouflaged, other = "COD10K-CAM-1-Aquatic-3-Crab-70", "COD10K-NonCAM-1-Aquatic-3-Crab-71"
    touch_pairs(tmp_path, "Train/Image", "Train/GT_Object", [camouflaged, other])
    touch_pairs(tmp_path, "Test/Image", "Test/GT_Object", [other])

    data = find_data([tmp_path], include_noncam=True)

    assert names(data) == ([camouflaged, other], {tmp_path.name: [other]})
    assert "NonCAM" not in data.description


def test_non_camouflaged_images_need_masks(tmp_path: Path) -> None:
    """Asked for, an image without camouflage that has no mask is an error like any other."""
    touch_pairs(tmp_path, "Imgs", "GT", ["COD10K-CAM-1-Aquatic-3-Crab-70"])
    touch(tmp_path / "Imgs", ["COD10K-NonCAM-1-Aquatic-3-Crab-71.jpg"])

    with pytest.raises(DataError, match=r"1 image \(COD10K-NonCAM-1-Aquatic-3-Crab-71\.jpg\) has no mask"):
        find_data([tmp_path], include_noncam=True)


def test_nothing_but_non_camouflaged_images(tmp_path: Path) -> None:
    """A folder of images without camouflage alone is an error that tells why none is left."""
    touch_pairs(tmp_path, "Imgs", "GT", ["COD10K-NonCAM-1-Aquatic-3-Crab-71"])

    with pytest.raises(DataError, match=r"skipped 1 NonCAM image \(no camouflaged object\)"):
        find_data([tmp_path])


def test_explicit_folders(tmp_path: Path) -> None:
    """Folders of any names train where they are given as images and masks, sorted and counted as others are."""
    touch_pairs(tmp_path, "field/photos", "field/cutouts", ["b", "a"])

    data = find_data([], folders=[(tmp_path / "field" / "photos", tmp_path / "field" / "cutouts")])

    assert names(data) == (["a", "b"], {})
    assert data.train[0].mask == tmp_path / "field" / "cutouts" / "a.png"
    folder = tmp_path / "field"
    assert data.description == f"{folder / 'photos'} + {folder / 'cutouts'}: 2 training pairs"


def test_explicit_folders_that_lie_apart(tmp_path: Path) -> None:
    """Images and masks may lie in different places, under names that mean something else elsewhere."""
    touch_pairs(tmp_path, "x/Test", "y/deep/Train")

    assert names(find_data([], folders=[(tmp_path / "x" / "Test", tmp_path / "y" / "deep" / "Train")])) == (
        ["a", "b"],
        {},
    )


def test_explicit_folders_beside_roots(tmp_path: Path) -> None:
    """Explicit folders add to the training pairs of roots, and make a test set of one that does not say what it is."""
    touch_pairs(tmp_path / "COD10K" / "Train", "Imgs", "GT", ["a"])
    touch_pairs(tmp_path / "NC4K", "Imgs", "GT", ["n"])
    touch_pairs(tmp_path / "mine", "photos", "cutouts", ["m"])
    touch_pairs(tmp_path / "yours", "photos", "cutouts", ["y"])
    folders = [(tmp_path / each / "photos", tmp_path / each / "cutouts") for each in ("mine", "yours")]

    assert names(find_data([tmp_path / "COD10K"], folders=folders)) == (["a", "m", "y"], {})
    assert names(find_data([tmp_path / "NC4K"], folders=folders[:1])) == (["m"], {"NC4K": ["n"]})


def test_explicit_folders_within_a_root(tmp_path: Path) -> None:
    """Explicit folders that lie in a root, or side by side, all count."""
    touch_pairs(tmp_path / "D" / "Train", "Imgs", "GT", ["a"])
    touch_pairs(tmp_path / "D", "photos1", "cutouts1", ["m"])
    touch_pairs(tmp_path / "D", "photos2", "cutouts2", ["n"])
    folders = [(tmp_path / "D" / f"photos{number}", tmp_path / "D" / f"cutouts{number}") for number in (1, 2)]

    assert names(find_data([tmp_path / "D"], folders=folders)) == (["a", "m", "n"], {})


def test_explicit_folders_absolute_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One path may be relative and the other absolute."""
    touch_pairs(tmp_path, "photos", "cutouts", ["a"])
    monkeypatch.chdir(tmp_path)

    assert names(find_data([], folders=[(Path("photos"), tmp_path / "cutouts")])) == (["a"], {})


def test_pair_that_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set beside its own training folder, or beside a list of its pairs, trains on each pair once."""
    touch_pairs(tmp_path / "D" / "TrainDataset", "Imgs", "GT")
    root = tmp_path / "D"
    write_list(tmp_path / "list.json", find_data([root]).train, {})

    assert names(find_data([root, root / "TrainDataset"])) == (["a", "b"], {})
    assert names(find_data([tmp_path / "list.json", root])) == (["a", "b"], {})
    # It would be held out and trained on at once.
    monkeypatch.chdir(tmp_path)
    assert names(find_data([Path("D"), root / "TrainDataset"])) == (["a", "b"], {})


def test_explicit_folders_to_score_on(tmp_path: Path) -> None:
    """Explicit folders are a test set where they are scored on, called after the folder that holds them."""
    touch_pairs(tmp_path / "mine", "photos", "cutouts", ["m"])
    touch_pairs(tmp_path / "CAMO", "Imgs", "GT", ["c"])

    data = find_data(
        [tmp_path / "CAMO"], folders=[(tmp_path / "mine" / "photos", tmp_path / "mine" / "cutouts")], scoring=True
    )

    assert names(data) == ([], {"CAMO": ["c"], "mine": ["m"]})


def test_explicit_folders_that_do_not_match(tmp_path: Path) -> None:
    """Explicit folders whose files have no names in common, or that are not there, are errors that name them."""
    touch(tmp_path / "photos", ["a.jpg"])
    touch(tmp_path / "cutouts", ["b.png"])

    with pytest.raises(DataError, match=r"1 image \(a\.jpg\) has no mask in .*cutouts"):
        find_data([], folders=[(tmp_path / "photos", tmp_path / "cutouts")])
    with pytest.raises(DataError, match=r"folder .*gone not found"):
        find_data([], folders=[(tmp_path / "photos", tmp_path / "gone")])


def test_list_file_as_a_root(tmp_path: Path) -> None:
    """A list in a file gives its training pairs and test sets in its own order, and is told in the description."""
    touch_pairs(tmp_path, "Imgs", "GT", ["a", "b", "c", "d"])
    a, b, c, d = find_data([tmp_path]).train
    write_list(tmp_path / "clean.json", [b, a], {"CAMO": [c], "NC4K": [d, c]})

    data = find_data([tmp_path / "clean.json"])

    assert data.train == (b, a)
    assert data.tests == {"CAMO": (c,), "NC4K": (d, c)}
    assert data.description == (
        f"{tmp_path / 'clean.json'}: 2 training pairs, 1 test pair of CAMO, 2 test pairs of NC4K"
    )


def test_list_file_beside_other_roots(tmp_path: Path) -> None:
    """Training pairs of lists and folders come together, and a folder that does not say what it is becomes a test set.

    A list given twice counts once.
    """
    touch_pairs(tmp_path / "COD10K" / "Train", "Imgs", "GT", ["a"])
    touch_pairs(tmp_path / "NC4K", "Imgs", "GT", ["n"])
    touch_pairs(tmp_path / "mine", "Imgs", "GT", ["m"])
    write_list(tmp_path / "mine.json", find_data([tmp_path / "mine"]).train, {})
    lists = [tmp_path / "mine.json", tmp_path / "mine" / ".." / "mine.json"]

    assert names(find_data([tmp_path / "COD10K", *lists])) == (["m", "a"], {})
    assert names(find_data([tmp_path / "NC4K", *lists])) == (["m"], {"NC4K": ["n"]})


def test_list_file_with_a_test_set_of_one_name(tmp_path: Path) -> None:
    """A test set of a list and one of a folder that have the same name are an error that names both places."""
    touch_pairs(tmp_path / "x" / "TestDataset" / "CAMO", "Imgs", "GT")
    touch_pairs(tmp_path / "y", "Imgs", "GT")
    write_list(tmp_path / "list.json", [], {"CAMO": find_data([tmp_path / "y"]).train})

    with pytest.raises(DataError, match=r"two test sets are named CAMO: .*y.*x"):
        find_data([tmp_path / "x", tmp_path / "list.json"])


def test_list_file_that_is_not_there(tmp_path: Path) -> None:
    """A list that is not there is an error that names it."""
    with pytest.raises(DataError, match=r"cannot read the list .*gone\.json"):
        find_data([tmp_path / "gone.json"])


def test_folder_called_as_a_list(tmp_path: Path) -> None:
    """A folder whose name ends as a list's does is a folder."""
    touch_pairs(tmp_path / "data.json", "Imgs", "GT")

    assert names(find_data([tmp_path / "data.json"])) == (["a", "b"], {})


def test_description_is_one_line(tmp_path: Path) -> None:
    """The description counts the pairs of each split and names their folders, on one line."""
    root = tmp_path / "COD10K-v3"
    touch_pairs(root / "Train", "Image", "GT_Object", ["a", "b", "c"])
    touch_pairs(root / "Test", "Image", "GT_Object", ["d"])

    assert find_data([root]).description == (
        f"{root}: 3 training pairs (Train/Image + Train/GT_Object), "
        "1 test pair of COD10K-v3 (Test/Image + Test/GT_Object)"
    )


def test_images_without_masks_and_masks_without_images(tmp_path: Path) -> None:
    """Both kinds of lone files are told at once: how many, and the first three."""
    touch(tmp_path / "Imgs", [f"{stem}.jpg" for stem in "abcdef"])
    touch(tmp_path / "GT", ["a.png", "b.png", "z.png"])

    with pytest.raises(DataError) as caught:
        find_data([tmp_path])

    assert "--write-clean" in caught.value.hint
    assert "4 images (c.jpg, d.jpg, e.jpg, ...) have no mask in" in caught.value.message
    assert "1 mask (z.png) has no image in" in caught.value.message


@pytest.mark.parametrize("folder", ["Imgs", "GT"])
def test_two_files_of_one_stem(tmp_path: Path, folder: str) -> None:
    """Two images or masks of one stem in a folder are an error that names both."""
    touch_pairs(tmp_path, "Imgs", "GT", ["a"])
    touch(tmp_path / folder, ["a.BMP"])

    with pytest.raises(DataError, match=r"two images with the same name: a\.BMP and a\."):
        find_data([tmp_path])


def test_test_sets_of_one_name(tmp_path: Path) -> None:
    """Two test sets of one name are an error that names both folders."""
    for place in ("x", "y"):
        touch_pairs(tmp_path / place / "TestDataset" / "CAMO", "Imgs", "GT")

    with pytest.raises(DataError, match=r"two test sets are named CAMO: .*x.*y"):
        find_data([tmp_path / "x", tmp_path / "y"])


def test_no_such_folder(tmp_path: Path) -> None:
    """A folder that is not there is named, with the sibling that was probably meant."""
    (tmp_path / "COD10K-v3").mkdir()

    with pytest.raises(DataError, match=r"folder .* not found") as caught:
        find_data([tmp_path / "COD10K-v2"])

    assert "COD10K-v3" in caught.value.hint


def test_archive_in_place_of_a_folder(tmp_path: Path) -> None:
    """A file is refused with the advice to unpack it."""
    touch(tmp_path, ["CAMO.zip"])

    with pytest.raises(DataError, match=re.escape("CAMO.zip is a file")) as caught:
        find_data([tmp_path / "CAMO.zip"])

    assert "extract" in caught.value.hint


def test_no_folder_given() -> None:
    """An empty list of folders is an error of its own."""
    with pytest.raises(DataError, match="no dataset folder was given"):
        find_data([])


def test_unknown_layout_tells_what_is_there(tmp_path: Path) -> None:
    """A folder of no known layout is described by its sub-folders and files, beside the layouts known."""
    touch(tmp_path / "frames", [])
    touch(tmp_path / "labels", [])
    touch(tmp_path, ["a.txt", "b.TXT", "c.csv", "README"])

    with pytest.raises(DataError) as caught:
        find_data([tmp_path])

    assert "2 .txt files, 1 README file, 1 .csv file and the subfolders frames and labels" in caught.value.message
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
    assert caught.value.hint == f"pass {expected}, which has a known layout"


def test_layout_without_images(tmp_path: Path) -> None:
    """Known folders without a single pair are an error that tells what they hold."""
    touch(tmp_path / "Imgs", ["a.heic", "b.heic"])
    touch(tmp_path / "GT", [])

    with pytest.raises(DataError, match=r"no image-mask pairs found: .*Imgs contains 2 \.heic files; .*GT is empty"):
        find_data([tmp_path])


def test_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission is an error for find_data and passed over by find_under."""

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)

    assert find_under(tmp_path) == []
    with pytest.raises(DataError, match="Permission denied"):
        find_data([tmp_path])


def test_files_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of thousands of images is listed, and no file asked for its kind, which takes minutes on a network."""
    touch_pairs(tmp_path, "Imgs", "GT", ["a", "b"])
    listed: list[Path] = []
    asked: list[Path] = []
    scandir, stat = os.scandir, os.stat

    def counted(path: Path) -> object:
        listed.append(path)
        return scandir(path)

    def noted(path: str | Path, **how: object) -> object:
        asked.append(Path(path))
        return stat(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("os.scandir", counted)
    monkeypatch.setattr("os.stat", noted)
    list_files(tmp_path / "Imgs", tmp_path / "GT")
    data = find_data([tmp_path])
    monkeypatch.undo()

    assert listed[:2] == [tmp_path / "Imgs", tmp_path / "GT"]
    assert listed[2] == tmp_path
    assert len(data.train) == 2
    assert {path for path in asked if path.suffix} == set()


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    """Beside images they are files like any other."""
    touch_pairs(tmp_path, "Imgs", "GT", ["a"])
    (tmp_path / "Imgs" / "self").symlink_to("self")
    (tmp_path / "self").symlink_to("self")

    data = find_data([tmp_path])

    assert [pair.name for pair in data.train] == ["a"]
    assert "skipped 1 self file (not readable" in data.description


def test_folders_beside_a_data_set_may_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the root of a disk there are some that nobody but the system may look into."""
    touch_pairs(tmp_path / "TrainDataset", "Imgs", "GT", ["a"])
    (tmp_path / "lost+found").mkdir()
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr("os.scandir", refuse)
        assert len(find_data([tmp_path]).train) == 1


def test_split_without_its_folders_is_left_out(tmp_path: Path) -> None:
    """A training folder without masks does not stop the test set from being used, but is told."""
    touch(tmp_path / "Train" / "Image", ["a.jpg"])
    touch_pairs(tmp_path / "Test", "Image", "GT_Object", ["c"])

    data = find_data([tmp_path])

    assert data.train == ()
    assert "skipped Train, which contains the subfolder Image" in data.description


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


def test_find_under_leaves_image_folders_alone(tmp_path: Path) -> None:
    """Nothing is looked for below a folder full of images; a few beside a read-me do not hide a data set."""
    touch(tmp_path / "full", [f"{index}.jpg" for index in range(30)])
    touch_pairs(tmp_path / "full" / "deeper", "Imgs", "GT")
    touch(tmp_path / "few", ["figure.png"])
    touch_pairs(tmp_path / "few" / "data", "Imgs", "GT")

    assert find_under(tmp_path) == [tmp_path / "few" / "data"]


@needs_shared_data
def test_real_data_sets() -> None:
    """Two real data sets are found and read as what they are."""
    cats = find_data([SHARED_DATA / "feral_cats"])
    images = find_data([SHARED_DATA / "camouflage_pair"])

    assert (len(cats.train), {name: len(pairs) for name, pairs in cats.tests.items()}) == (400, {"feral_cats": 100})
    assert len(images.train) == 2
    assert find_under(SHARED_DATA) == [SHARED_DATA / "camouflage_pair", SHARED_DATA / "feral_cats"]


def test_images_as_their_own_masks(tmp_path: Path) -> None:
    """One folder for images and masks is refused: each image would be its own mask."""
    touch(tmp_path / "photos", ["a.jpg"])

    with pytest.raises(DataError, match="was given as the folder of both images and masks"):
        find_data([], folders=[(tmp_path / "photos", tmp_path / "x" / ".." / "photos")])


def test_overlaps_count_once_in_words(tmp_path: Path) -> None:
    """What a second root adds is told, not what it holds."""
    touch_pairs(tmp_path / "TrainDataset", "Imgs", "GT")

    description = find_data([tmp_path, tmp_path / "TrainDataset"]).description
    assert "2 training pairs" in description
    assert "0 training pairs" in description


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("COD10K.zip", "extract the archive and pass its folder"),
        ("data.tar.gz", "extract the archive and pass its folder"),
        ("notes.txt", "pass the folder of the dataset, or a list written by camox check-data --write-clean"),
    ],
)
def test_a_file_that_is_no_folder(tmp_path: Path, name: str, hint: str) -> None:
    """An archive has to be extracted; of any other file it is told what is expected instead."""
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="is a file, expected a dataset folder") as caught:
        find_data([tmp_path / name])

    assert caught.value.hint == hint


def test_a_folder_of_many_kinds(tmp_path: Path) -> None:
    """What a folder holds is told as a list that ends in `and`, and is cut where it is long."""
    for index in range(10):
        (tmp_path / f"part{index}").mkdir()
        (tmp_path / f"file.x{index}").touch()
    with pytest.raises(DataError) as caught:
        find_data([tmp_path])

    assert "1 .x7 file, other files and the subfolders part0, part1, part2, " in caught.value.message
    assert caught.value.message.endswith("part7 and 2 more")
