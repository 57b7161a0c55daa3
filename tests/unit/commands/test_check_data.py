"""`camox check-data`: what it prints, writes and exits with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.data.layouts import find_data
from tests.helpers.image_files import noise, square_mask, write, write_pairs


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["check-data", *map(str, arguments)])


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Four training pairs and two test pairs of one set, each image of its own."""
    write_pairs(tmp_path / "clean" / "TrainDataset", 4)
    for index in range(2):
        write(tmp_path / "clean" / "TestDataset" / "CAMO" / "Imgs" / f"t{index}.png", noise(100 + index))
        write(tmp_path / "clean" / "TestDataset" / "CAMO" / "GT" / f"t{index}.png", square_mask(100 + index))
    return tmp_path / "clean"


@pytest.fixture
def faulty(clean: Path) -> Path:
    """The same with an empty mask, an image that is no image, and a training image in the test set."""
    folder = clean.rename(clean.with_name("faulty"))
    write(folder / "TrainDataset" / "GT" / "001.png", np.zeros((25, 32), np.uint8))
    (folder / "TestDataset" / "CAMO" / "Imgs" / "t1.png").write_bytes(b"not a picture")
    write(folder / "TestDataset" / "CAMO" / "Imgs" / "t0.png", noise(3))
    return folder


def test_no_faults(clean: Path) -> None:
    """A data set without faults ends with 0 and says so, beside its sets, sizes and areas."""
    outcome = run(clean)

    assert outcome.exit_code == 0, outcome.output
    lines = outcome.stdout.splitlines()
    assert lines[-1] == "No problems found."
    header, train, test = (line.split() for line in lines[:3])
    assert header[:2] == ["images", "masks"]
    assert train[:4] == ["train", "clean", "4", "4"]
    assert train[4:7] == ["32×24", "32×25", "32×26"]
    assert test[:4] == ["test", "CAMO", "2", "2"]
    assert train[-1] == test[-1] == "0"
    assert outcome.stderr == ""


def test_faults(faulty: Path) -> None:
    """Faults end with 3; each kind is told with its number, and each fault with its file and what is wrong."""
    outcome = run(faulty)

    assert outcome.exit_code == 3
    paragraph = outcome.stdout.split("\n\n")[1]
    camo, train = faulty / "TestDataset" / "CAMO" / "Imgs", faulty / "TrainDataset"
    assert paragraph.splitlines() == [
        "Files that cannot be decoded as an image: 1",
        f"  {camo / 't1.png'}: cannot be decoded as an image",
        "Masks without an object: 1",
        f"  {train / 'GT' / '001.png'}: marks no pixel",
        "  if these images show no object: add --empty-as-negatives, here and to camox train",
        "Training images also in validation or test data, and validation images also in test data: 1",
        f"  {train / 'Imgs' / '003.png'}: also in test CAMO: {camo / 't0.png'}",
    ]
    assert outcome.stderr == (
        "Error: 3 problems found; --write-clean writes a list of the usable pairs only\n"
        f"Try:   camox check-data {faulty} --write-clean clean.json\n"
    )


def test_empty_masks_that_are_meant(faulty: Path, tmp_path: Path) -> None:
    """On request they are no problem, and in the list of usable pairs; the command to repeat keeps the option."""
    outcome = run(faulty, "--empty-as-negatives", "--write-clean", tmp_path / "clean.json")
    again = run(faulty, "--empty-as-negatives")

    assert "Masks without an object" not in outcome.stdout
    assert "2 problems found" in outcome.stderr
    assert "001.png" in (tmp_path / "clean.json").read_text()
    assert f"camox check-data {faulty} --empty-as-negatives --write-clean clean.json" in again.stderr


def test_sizes_by_area(tmp_path: Path) -> None:
    """Small, median and large are told by the number of pixels: a high and narrow image is no large one."""
    for index, (height, width) in enumerate([(30, 30), (100, 5), (10, 100)]):
        write(tmp_path / "Imgs" / f"{index}.png", noise(index, height, width))
        write(tmp_path / "GT" / f"{index}.png", square_mask(index, height, width))

    (each,) = json.loads(run(tmp_path, "--json").stdout)["sets"]

    assert each["sizes"] == {"smallest": [100, 5], "median": [30, 30], "largest": [10, 100]}
    assert re.search(r"\d\.\d% to \d+\.\d%, median \d+\.\d%", run(tmp_path).stdout)


def test_many_faults_of_a_kind(tmp_path: Path) -> None:
    """Of many faults of one kind ten are shown on the screen, and all in the JSON."""
    for pair in write_pairs(tmp_path, 13):
        pair.mask.unlink()

    outcome = run(tmp_path)

    assert "Images without a mask: 13\n" in outcome.stdout
    assert outcome.stdout.count("no mask has the same name") == 10
    assert "  and 3 more, see --json\n" in outcome.stdout
    assert len(json.loads(run(tmp_path, "--json").stdout)["faults"]) == 13


def test_json(faulty: Path) -> None:
    """The JSON has all sets and faults; nothing else goes to stdout, and the exit code is the same."""
    outcome = run(faulty, "--json")
    content = json.loads(outcome.stdout)

    assert outcome.exit_code == 3
    assert [(each["role"], each["name"], each["pairs"]) for each in content["sets"]] == [
        ("train", "faulty", 4),
        ("test", "CAMO", 2),
    ]
    assert content["sets"][0]["sizes"] == {"smallest": [24, 32], "median": [25, 32], "largest": [26, 32]}
    assert content["sets"][0]["areas"]["small_objects"] == 1
    assert content["sets"][0]["areas"]["smallest"] == 0
    assert [fault["kind"] for fault in content["faults"]] == ["unreadable", "empty", "leak"]
    assert content["faults"][1] == {
        "kind": "empty",
        "set": "train faulty",
        "path": str(faulty / "TrainDataset" / "GT" / "001.png"),
        "detail": "marks no pixel",
        "trainable": False,
    }


def test_json_without_faults(clean: Path) -> None:
    """The JSON of a clean data set has an empty list of faults."""
    outcome = run(clean, "--json")

    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout)["faults"] == []


def test_json_of_nothing_that_can_be_read(tmp_path: Path) -> None:
    """Where no image can be read there are neither sizes nor areas, in the table and the JSON."""
    for pair in write_pairs(tmp_path, 1):
        pair.image.write_bytes(b"")
        pair.mask.write_bytes(b"")

    (each,) = json.loads(run(tmp_path, "--json").stdout)["sets"]

    assert (each["sizes"], each["areas"], each["pairs"]) == ({}, {}, 1)
    assert "Files that cannot be decoded as an image: 2" in run(tmp_path).stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_list_of_clean_pairs(faulty: Path, tmp_path: Path, as_json: bool) -> None:
    """The list holds the pairs without a fault, is announced with its numbers, and `find_data` takes it as a root."""
    path = tmp_path / "clean.json"
    outcome = run(faulty, "--write-clean", path, *(["--json"] if as_json else []))
    data = find_data([path])

    assert outcome.exit_code == 3
    assert [pair.name for pair in data.train] == ["000", "002"]
    assert [pair.name for pair in data.tests["CAMO"]] == ["t0"]
    assert outcome.stderr.endswith(f"Try:   camox train --dataset-path {path}\n")
    if as_json:
        assert len(json.loads(outcome.stdout)["faults"]) == 3
    else:
        assert outcome.stdout.endswith(f"\nWritten: {path}, 2 training pairs, 1 of 2 test pairs of CAMO\n")


def test_list_of_a_clean_data_set(clean: Path, tmp_path: Path) -> None:
    """The list of a data set without faults holds all of it."""
    assert run(clean, "--write-clean", tmp_path / "clean.json").exit_code == 0

    listed, found = find_data([tmp_path / "clean.json"]), find_data([clean])
    assert (listed.train, listed.tests) == (found.train, found.tests)


def test_list_without_a_test_set(faulty: Path, tmp_path: Path) -> None:
    """A test set of which no pair is left is not in the list."""
    (faulty / "TestDataset" / "CAMO" / "Imgs" / "t0.png").write_bytes(b"not a picture")
    run(faulty, "--write-clean", tmp_path / "clean.json")

    assert find_data([tmp_path / "clean.json"]).tests == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clean.txt", "is not a valid name for a list of pairs"),
        ("list", "is not a valid name for a list of pairs"),
        ("nowhere/clean.json", "clean.json cannot be written: folder "),
        ("clean/TrainDataset.json", "is not a valid name for a list of pairs"),
    ],
)
def test_list_that_cannot_be_one(clean: Path, tmp_path: Path, name: str, expected: str) -> None:
    """A list of another ending, or that cannot be written where it shall lie, is refused before anything is read."""
    (clean / "TrainDataset.json").mkdir()
    outcome = run(clean, "--write-clean", tmp_path / name)

    assert outcome.exit_code == 2
    assert expected in outcome.stderr
    assert "Traceback" not in outcome.output
    assert outcome.stdout == ""
    assert not (tmp_path / name).is_file()


def test_non_camouflaged_images(tmp_path: Path) -> None:
    """COD10K's NonCAM images are told as left out, or read with `--include-noncam`; classes are counted."""
    for index, name in enumerate(("CAM-1-Aquatic-3-Crab-1", "CAM-1-Aquatic-3-Crab-2", "NonCAM-3-Flying-53-Bird-3")):
        write(tmp_path / "Imgs" / f"COD10K-{name}.png", noise(index))
        mask = square_mask(index) * (not name.startswith("Non"))
        write(tmp_path / "GT" / f"COD10K-{name}.png", mask)
    without, included = run(tmp_path), run(tmp_path, "--include-noncam")

    title = f"train {tmp_path.name}"
    assert (without.exit_code, included.exit_code) == (0, 0)
    assert f"{title}: skipped 1 NonCAM image\n" in without.stdout
    assert f"{title}, superclasses: Aquatic 2\n" in without.stdout
    assert "excluded" not in included.stdout
    assert f"{title}, superclasses: Aquatic 2, Flying 1\n" in included.stdout
    assert f"{title}, classes: Bird 1, Crab 2\n" in included.stdout


def test_one_fault_and_nothing_left(tmp_path: Path) -> None:
    """A single fault is told in the singular; where it leaves no pair, no list is written."""
    write_pairs(tmp_path, 1)[0].mask.write_bytes(b"")

    assert "Error: 1 problem found;" in run(tmp_path).stderr
    outcome = run(tmp_path, "--write-clean", tmp_path / "clean.json")
    assert outcome.exit_code == 3
    assert "no usable pairs remain" in outcome.stderr
    assert not (tmp_path / "clean.json").exists()


def test_several_folders(clean: Path, tmp_path: Path) -> None:
    """Several folders are looked through together, and named in the hint as they were given."""
    write_pairs(tmp_path / "more" / "Train", 1)

    outcome = run(clean, tmp_path / "more")

    assert outcome.exit_code == 3
    assert "Images that occur more than once in a set: 1" in outcome.stdout
    assert f"camox check-data {clean} {tmp_path / 'more'} --write-clean" in outcome.stderr


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gone", "gone not found"), ("frames", "does not have a known dataset layout"), ("CAMO.zip", "is a file")],
)
def test_folder_that_is_no_data_set(tmp_path: Path, name: str, expected: str) -> None:
    """A folder that is no data set exits with 3 and one sentence, and no list is written."""
    (tmp_path / "frames").mkdir()
    (tmp_path / "CAMO.zip").touch()

    outcome = run(tmp_path / name, "--write-clean", tmp_path / "clean.json")

    assert outcome.exit_code == 3
    assert expected in outcome.stderr
    assert "Traceback" not in outcome.output
    assert not (tmp_path / "clean.json").exists()


def test_no_folder_given() -> None:
    """Without a folder the command line is wrong."""
    assert run().exit_code == 2


def test_overlapping_folders(clean: Path) -> None:
    """A data set and a part of it are read once: no image is its own duplicate."""
    outcome = run(clean, clean / "TrainDataset")

    assert outcome.exit_code == 0, outcome.output
    assert "No problems found." in outcome.stdout


def test_copy_of_a_faulty_pair_stays(clean: Path, tmp_path: Path) -> None:
    """Of two equal images the one whose mask is good stays in the list."""
    folder = clean / "TrainDataset"
    write(folder / "Imgs" / "zzz.png", noise(0))
    write(folder / "GT" / "zzz.png", square_mask(0))
    write(folder / "GT" / "000.png", np.zeros((24, 32), np.uint8))
    run(clean, "--write-clean", tmp_path / "clean.json")

    assert [pair.name for pair in find_data([tmp_path / "clean.json"]).train] == ["001", "002", "003", "zzz"]


def test_two_test_sets_of_one_name(tmp_path: Path) -> None:
    """As in training, they are refused before anything is read."""
    for place in ("a", "b"):
        write_pairs(tmp_path / place / "TestDataset" / "CAMO", 1)
    outcome = run(tmp_path / "a", tmp_path / "b")

    assert outcome.exit_code == 3
    assert "two test sets are named CAMO" in outcome.stderr


def test_folders_of_any_name(clean: Path) -> None:
    """Images and masks may be given by their folders; one without the other is a usage error, and so is nothing."""
    folders = ["--images", clean / "TrainDataset" / "Imgs", "--masks", clean / "TrainDataset" / "GT"]
    outcome = run(*folders)

    assert outcome.exit_code == 0, outcome.output
    assert "train TrainDataset" in outcome.stdout
    assert run(*folders[:2]).exit_code == 2


def test_other_files_are_not_replaced(faulty: Path, tmp_path: Path) -> None:
    """A JSON file of something else is kept, an earlier list is not."""
    precious, earlier = tmp_path / "annotations.json", tmp_path / "clean.json"
    precious.write_text("{}")
    run(faulty, "--write-clean", earlier)
    outcome = run(faulty, "--write-clean", precious)

    assert outcome.exit_code == 2
    assert "was not written by camox" in outcome.stderr
    assert precious.read_text() == "{}"
    assert run(faulty, "--write-clean", earlier).exit_code == 3


def test_what_was_passed_over_is_told(clean: Path) -> None:
    """A folder that should hold a test set and does not is named, as in training."""
    (clean / "TestDataset" / "NC4K" / "Pics").mkdir(parents=True)

    assert "skipped TestDataset/NC4K" in run(clean).stdout


def test_nothing_that_can_be_used(tmp_path: Path) -> None:
    """A data set without a pair is not called faultless."""
    for name in ("Imgs", "GT"):
        (tmp_path / name).mkdir()
    outcome = run(tmp_path)

    assert outcome.exit_code == 3
    assert "Folders without any image-mask pair: 1" in outcome.stdout
    assert "No problems found" not in outcome.stdout


def test_masks_that_can_be_mended(tmp_path: Path) -> None:
    """Of masks that are refused because of their values, the command that mends them is shown once."""
    for pair in write_pairs(tmp_path, 3):
        write(pair.mask, (square_mask(0, 24 + int(pair.name) % 3) > 0) * np.uint8(1))
    outcome = run(tmp_path)

    assert outcome.exit_code == 3
    assert (
        outcome.stdout.count("contains no value high enough to mark an object, only 0 and 1; expected 0 and 255") == 3
    )
    assert outcome.stdout.count("cp -r") == 1


def test_masks_that_say_two_things(tmp_path: Path) -> None:
    """Class numbers next to 255 are told as such, with the commands for either meaning, and are not used."""
    pair, *_ = write_pairs(tmp_path / "data", 2)
    mask = np.asarray(square_mask(0) // 255)
    mask[0] = 255
    write(pair.mask, mask)
    outcome = run(tmp_path / "data", "--write-clean", tmp_path / "clean.json")

    assert outcome.exit_code == 3
    assert "Masks with values other than black and white: 1\n" in outcome.stdout
    assert "contains 0, 1 and 255: small numbers are usually class indices" in outcome.stdout
    assert f"if some class indices are object: camox import-labels {pair.mask.parent} --images DIR" in outcome.stdout
    assert len(find_data([tmp_path / "clean.json"]).train) == 1


def test_validation_pictures(clean: Path, tmp_path: Path) -> None:
    """Folders to validate on are checked beside the others, and are in the list of what can be used."""
    for index in range(2):
        write(tmp_path / "v" / "photos" / f"v{index}.png", noise(200 + index))
        write(tmp_path / "v" / "cutouts" / f"v{index}.png", square_mask(200 + index))
    write(tmp_path / "v" / "photos" / "v1.png", noise(0))  # trained on too
    flags = ["--val-images", tmp_path / "v" / "photos", "--val-masks", tmp_path / "v" / "cutouts"]
    outcome = run(clean, *flags, "--write-clean", tmp_path / "list.json")
    found = find_data([tmp_path / "list.json"])

    assert outcome.exit_code == 3
    assert "train clean" in outcome.stdout
    assert "also in val v" in outcome.stdout
    assert "2 validation pairs, " in outcome.stdout
    assert ([pair.name for pair in found.train], [pair.name for pair in found.validation]) == (
        ["001", "002", "003"],
        ["v0", "v1"],
    )
    assert run(clean, *flags[:2]).exit_code == 2


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (
            "--images a --images b --masks c",
            "--images and --masks belong together: --images has 2 folders, --masks has",
        ),
        ("--val-masks c", "together: --val-images is missing, --val-masks has 1 folder"),
    ],
)
def test_folders_that_are_not_paired(flags: str, complaint: str) -> None:
    """Which of the two flags lacks a folder is told."""
    outcome = run(*flags.split())

    assert outcome.exit_code == 2
    assert complaint in outcome.stderr
