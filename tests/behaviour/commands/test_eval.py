"""`camox eval`: what it prints, writes and exits with."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.engine.train import train
from camoxpert_cli.metrics.image_scores import score_image
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.processes import camox
from tests.helpers.processes import run as run_process
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET, tiny_plan
from tests.helpers.vivid import write_vivid_checkpoint


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with two tiny epochs behind it."""
    return train(tiny_plan(tiny_data, tmp_path_factory.mktemp("trained") / "run")).folder


@pytest.fixture(scope="module")
def vivid(trained: RunFolder, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vivid_checkpoint(trained.best, tiny_data, tmp_path_factory.mktemp("vivid") / "vivid.pth")


@pytest.fixture(scope="module")
def masks(tiny_data: Path) -> Path:
    return tiny_data / "TestDataset" / TEST_SET / "GT"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_checkpoint_and_its_maps(vivid: Path, tiny_data: Path, masks: Path, tmp_path: Path) -> None:
    """A checkpoint's scores are those of the maps it saves, whatever program made them."""
    scored = run(
        vivid, "--dataset-path", tiny_data, "--device", "cpu", "--batch-size", 4, "--json",
        "--save-maps", tmp_path / "maps", "--out", tmp_path / "scores",
    )  # fmt: skip
    again = run("--maps", tmp_path / "maps" / TEST_SET, "--masks", masks, "--json", "--out", tmp_path / "again")

    assert scored.exit_code == 0, scored.output
    assert again.exit_code == 0, again.output
    content = json.loads(scored.stdout)
    assert content == json.loads((tmp_path / "scores" / "results.json").read_text(encoding="utf-8"))
    assert content["sets"] == json.loads(again.stdout)["sets"]
    assert files(tmp_path / "scores")["per_image.csv"] == files(tmp_path / "again")["per_image.csv"]
    rows = list(csv.DictReader((tmp_path / "scores" / "per_image.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == TEST_IMAGES
    for row in rows:
        grey, mask = (
            cv2.imread(str(folder / f"{row['name']}.png"), 0) for folder in (tmp_path / "maps" / TEST_SET, masks)
        )
        assert grey is not None
        assert mask is not None
        expected = score_image(np.asarray(grey, dtype=np.uint8), np.asarray(mask) > 128)
        assert float(row["weighted_f"]) == expected.weighted_f
    assert (tmp_path / "scores" / "report.html").stat().st_size > 10_000


def test_closing_scores(trained: RunFolder, tiny_data: Path) -> None:
    """Scores of the best weights are those that training ended with."""
    outcome = run(trained.best, "--dataset-path", tiny_data, "--device", "cpu", "--batch-size", 4, "--json")
    closing = json.loads(trained.results.read_text(encoding="utf-8"))["tests"]

    assert json.loads(outcome.stdout)["sets"] == closing


def test_two_processes(vivid: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Two processes write the files that one writes, byte for byte."""
    for gpus in ("1", "2"):
        code, output = run_process(
            camox(
                "eval", str(vivid), "--dataset-path", str(tiny_data), "--device", "cpu", "--gpus", gpus,
                "--batch-size", "2", "--out", str(tmp_path / gpus), "--save-maps", str(tmp_path / gpus / "maps"),
            )
        )  # fmt: skip
        assert code == 0, output
    one, two = (files(tmp_path / gpus) for gpus in ("1", "2"))
    for each in (one, two):
        each.pop("report.html")  # it shows the command

    assert set(one) == set(two) > {"results.json", "per_image.csv", f"maps/{TEST_SET}/test-00.png"}
    assert one == two


def test_views_change_maps(vivid: Path, tiny_data: Path) -> None:
    """Test-time augmentation gives other scores, and says so in the results."""
    plain, flipped = (
        json.loads(run(vivid, "--dataset-path", tiny_data, "--device", "cpu", "--json", *more).stdout)
        for more in ((), ("--tta", "flip"))
    )

    assert (plain["tta"]["flip"], flipped["tta"]["flip"]) == (False, True)
    assert plain["sets"][TEST_SET]["mae"] != flipped["sets"][TEST_SET]["mae"]


def test_pair_of_folders_and_table(vivid: Path, masks: Path) -> None:
    """Any two folders are a test set; without --json a table of at most 80 columns goes to stdout."""
    outcome = run(vivid, "--images", masks.parent / "Imgs", "--masks", masks, "--device", "cpu")

    assert outcome.exit_code == 0, outcome.output
    assert f"{TEST_SET}" in outcome.stdout.splitlines()[0]
    assert max(map(len, outcome.stdout.splitlines())) <= 80


@pytest.fixture
def maps(masks: Path, tmp_path: Path) -> Path:
    """Perfect maps."""
    return Path(shutil.copytree(masks, tmp_path / "maps"))


def test_perfect_maps(maps: Path, masks: Path) -> None:
    """Masks as maps have no error and all of the overlap."""
    content = json.loads(run("--maps", maps, "--masks", masks, "--json").stdout)["sets"][TEST_SET]

    assert content["mae"] == 0
    assert content["iou"] == content["dice"] == content["f_max"] == 1
    assert content["s_measure"] == pytest.approx(1, abs=1e-9)


def test_maps_of_another_size_are_resized(maps: Path, masks: Path) -> None:
    """A map of another size is brought to its mask's, and the user is told."""
    path = next(maps.iterdir())
    image = cv2.imread(str(path), 0)
    assert image is not None
    cv2.imwrite(str(path), cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
    outcome = run("--maps", maps, "--masks", masks, "--json")

    assert outcome.exit_code == 0
    assert f"1 of {TEST_IMAGES} maps have another size" in outcome.stderr
    assert json.loads(outcome.stdout)["sets"][TEST_SET]["iou"] > 0.95


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda maps: next(maps.iterdir()).unlink(), "has no map in"),
        (lambda maps: next(maps.iterdir()).rename(maps / "stranger.png"), "the map stranger.png has no mask in"),
        (lambda maps: next(maps.iterdir()).write_bytes(b"no picture"), "cannot be read as a picture"),
        (lambda maps: shutil.rmtree(maps), "cannot look into"),
    ],
)
def test_maps_that_do_not_match(maps: Path, masks: Path, tmp_path: Path, spoil: Any, complaint: str) -> None:
    """Scores over a part of a test set compare with nothing: what is missing is named, and nothing is written."""
    spoil(maps)
    outcome = run("--maps", maps, "--masks", masks, "--out", tmp_path / "out")

    assert outcome.exit_code == 3
    assert complaint in outcome.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "neither a checkpoint nor --maps"),
        ("best.pth --maps maps --masks masks", "are both given"),
        ("--maps maps", "needs the folder of the masks"),
        ("--maps maps --masks masks --dataset-path data", "--dataset-path is for checkpoints"),
        ("best.pth", "no test set was given"),
        ("best.pth --images images", "belong together"),
        ("best.pth --dataset-path data --tta rotate", "--tta is 'rotate'"),
        ("best.pth --dataset-path data --gpus none", "gpus"),
    ],
)
def test_wrong_arguments(arguments: str, complaint: str) -> None:
    """One sentence that names what is wrong, and exit code 2, before anything is read."""
    outcome = run(*arguments.split())

    assert outcome.exit_code == 2
    assert complaint in outcome.stderr


def test_unknown_set(trained: RunFolder, tiny_data: Path) -> None:
    """A misspelt test set is named with the nearest one."""
    outcome = run(trained.best, "--dataset-path", tiny_data, "--set", "TIMY", "--device", "cpu")

    assert outcome.exit_code == 2
    assert f"--set {TEST_SET}" in outcome.stderr


def test_training_images_only(trained: RunFolder, tiny_data: Path) -> None:
    """A folder of training images has no test set."""
    outcome = run(trained.best, "--dataset-path", tiny_data / "TrainDataset", "--device", "cpu")

    assert outcome.exit_code == 3
    assert "holds training pictures only" in outcome.stderr
    assert find_data([tiny_data / "TrainDataset"]).train
