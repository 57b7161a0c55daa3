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
from camoxpert_cli.checkpoints.load import load_model
from camoxpert_cli.inference.outputs import Outputs
from camoxpert_cli.inference.predict import predict
from camoxpert_cli.metrics.image_scores import score_image
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.processes import camox
from tests.helpers.processes import run as run_process
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET
from tests.helpers.vivid import vivid_network, write_vivid_checkpoint

ONE_BY_ONE = ("--device", "cpu", "--batch-size", "1")


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


@pytest.fixture(scope="module")
def vivid(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vivid_checkpoint(vivid_network(tiny_data), tmp_path_factory.mktemp("vivid") / "vivid.pth")


@pytest.fixture(scope="module")
def masks(tiny_data: Path) -> Path:
    return tiny_data / "TestDataset" / TEST_SET / "GT"


@pytest.fixture(scope="module")
def scored(vivid: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores, maps and what was printed of the vivid checkpoint, by one process."""
    out = tmp_path_factory.mktemp("scored")
    outcome = run(
        vivid, "--dataset-path", tiny_data, *ONE_BY_ONE, "--json", "--out", out, "--save-predictions", out / "maps"
    )
    assert outcome.exit_code == 0, outcome.output
    (out / "stdout").write_text(outcome.stdout, encoding="utf-8")
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pixels(folder: Path) -> dict[str, Any]:
    return {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED).tolist() for path in folder.iterdir()}  # type: ignore[union-attr]


def test_checkpoint_and_its_maps(scored: Path, masks: Path) -> None:
    """A checkpoint's scores are those of the maps it saves, whatever program made them."""
    again = run("--predictions", scored / "maps" / TEST_SET, "--masks", masks, "--json")

    assert again.exit_code == 0, again.output
    content = json.loads((scored / "results.json").read_text(encoding="utf-8"))
    assert json.loads((scored / "stdout").read_text(encoding="utf-8")) == content
    assert content["sets"] == json.loads(again.stdout)["sets"]
    rows = list(csv.DictReader((scored / "per_image.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == TEST_IMAGES
    for row in rows:
        grey, mask = (
            cv2.imread(str(folder / f"{row['name']}.png"), 0) for folder in (scored / "maps" / TEST_SET, masks)
        )
        assert grey is not None
        assert mask is not None
        expected = score_image(np.asarray(grey, dtype=np.uint8), np.asarray(mask) > 128)
        assert float(row["weighted_f"]) == expected.weighted_f
    assert (scored / "report.html").stat().st_size > 10_000


def test_closing_scores(plain_run: RunFolder, tiny_data: Path) -> None:
    """Scores of the best weights are those that training ended with."""
    outcome = run(plain_run.best, "--dataset-path", tiny_data, "--device", "cpu", "--batch-size", 4, "--json")
    closing = json.loads(plain_run.results.read_text(encoding="utf-8"))["tests"]

    assert json.loads(outcome.stdout)["sets"] == closing


def test_two_processes(scored: Path, vivid: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Two processes write the files that one writes, byte for byte."""
    code, output = run_process(
        camox(
            "eval", str(vivid), "--dataset-path", str(tiny_data), *ONE_BY_ONE, "--gpus", "2",
            "--out", str(tmp_path), "--save-predictions", str(tmp_path / "maps"),
        )
    )  # fmt: skip
    assert code == 0, output
    one, two = files(scored), files(tmp_path)
    del one["stdout"]
    for each in (one, two):
        each.pop("report.html")  # it shows the command

    assert set(one) == set(two) > {"results.json", "per_image.csv", f"maps/{TEST_SET}/test-00.png"}
    assert one == two


def test_views_of_a_pair_of_folders(scored: Path, vivid: Path, masks: Path) -> None:
    """Any two folders are a test set. Test-time augmentation gives other scores, and the results say so."""
    plain = json.loads((scored / "results.json").read_text(encoding="utf-8"))
    outcome = run(vivid, "--images", masks.parent / "Imgs", "--masks", masks, *ONE_BY_ONE, "--tta", "flip", "--json")
    flipped = json.loads(outcome.stdout)

    assert (plain["tta"]["flip"], flipped["tta"]["flip"]) == (False, True)
    assert flipped["sets"][TEST_SET]["images"] == TEST_IMAGES
    assert plain["sets"][TEST_SET]["mae"] != flipped["sets"][TEST_SET]["mae"]


def test_weights_and_size(vivid: Path, tiny_data: Path, masks: Path, tmp_path: Path) -> None:
    """The weights themselves, at another size: maps are those that `predict` writes of them."""
    outcome = run(
        vivid, "--dataset-path", tiny_data, *ONE_BY_ONE, "--weights", "model", "--img-size", "96",
        "--json", "--save-predictions", tmp_path / "maps",
    )  # fmt: skip
    network, outputs = load_model(vivid, ema=False), Outputs(tmp_path / "predicted")
    predict(network, [masks.parent / "Imgs"], outputs, device=None, img_size=96, overwrite=False)

    assert json.loads(outcome.stdout)["img_size"] == 96
    assert pixels(tmp_path / "maps" / TEST_SET) == pixels(tmp_path / "predicted")


def test_table(scored: Path, masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --json a table of at most 80 columns goes to stdout."""
    monkeypatch.chdir(scored / "maps")
    outcome = run("--predictions", TEST_SET, "--masks", masks)

    assert outcome.exit_code == 0, outcome.output
    assert f"{TEST_SET}" in outcome.stdout.splitlines()[0]
    assert max(map(len, outcome.stdout.splitlines())) <= 80


@pytest.fixture
def maps(masks: Path, tmp_path: Path) -> Path:
    """Perfect maps."""
    return Path(shutil.copytree(masks, tmp_path / "maps"))


def test_perfect_maps(maps: Path, masks: Path) -> None:
    """Masks as maps have no error and all of the overlap."""
    content = json.loads(run("--predictions", maps, "--masks", masks, "--json").stdout)["sets"][TEST_SET]

    assert content["mae"] == 0
    assert content["iou"] == content["dice"] == content["f_max"] == 1
    assert content["s_measure"] == pytest.approx(1, abs=1e-9)


def test_protocol(maps: Path, masks: Path) -> None:
    """How maps are scored can be chosen, and the results say so."""
    outcome = run("--predictions", maps, "--masks", masks, "--no-stretch", "--empty-masks", "exact", "--json")
    content = json.loads(outcome.stdout)

    assert (content["stretch"], content["empty_masks"]) == (False, "exact")


def test_maps_of_noncam_pictures(maps: Path, masks: Path, tmp_path: Path) -> None:
    """They are scored where that is asked for, and otherwise left out as anywhere else."""
    masks = Path(shutil.copytree(masks, tmp_path / "SET" / "GT"))
    for folder in (maps, masks):
        shutil.copy(next(folder.iterdir()), folder / "COD10K-NonCAM-1-Aquatic-3-Crab-1.png")
    counts = [
        json.loads(run("--predictions", maps, "--masks", masks, "--json", *flags).stdout)["sets"]["SET"]["images"]
        for flags in ((), ("--include-noncam",))
    ]

    assert counts == [TEST_IMAGES, TEST_IMAGES + 1]


@pytest.mark.parametrize("value", [1, 38])
def test_masks_that_say_nothing(vivid: Path, masks: Path, maps: Path, tmp_path: Path, value: int) -> None:
    """A set whose masks would be read as empty is scored neither for a network nor for maps: exit code 3, and why."""
    shutil.copytree(masks.parent / "Imgs", tmp_path / "SET" / "Imgs")
    for path in masks.iterdir():
        mask = cv2.imread(str(path), 0)
        assert mask is not None
        (tmp_path / "SET" / "GT").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "SET" / "GT" / path.name), mask // 255 * value)
    network = run(vivid, "--dataset-path", tmp_path / "SET", *ONE_BY_ONE)
    given = run("--predictions", maps, "--masks", tmp_path / "SET" / "GT")

    assert (network.exit_code, given.exit_code) == (3, 3)
    for outcome in (network, given):
        assert (
            f"contains no value high enough to mark an object, only 0 and {value}; expected 0 and 255" in outcome.stderr
        )
        assert "cp -r" in outcome.stderr


def test_maps_of_another_size_are_resized(maps: Path, masks: Path) -> None:
    """A map of another size is brought to its mask's, and the user is told."""
    path = next(maps.iterdir())
    image = cv2.imread(str(path), 0)
    assert image is not None
    cv2.imwrite(str(path), cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
    outcome = run("--predictions", maps, "--masks", masks, "--json")

    assert outcome.exit_code == 0
    assert f"prediction and mask differ in size for 1 of {TEST_IMAGES} pairs" in outcome.stderr
    assert json.loads(outcome.stdout)["sets"][TEST_SET]["iou"] > 0.95


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda maps: next(maps.iterdir()).unlink(), "has no prediction in"),
        (lambda maps: next(maps.iterdir()).rename(maps / "stranger.png"), "the prediction stranger.png has no mask in"),
        (
            lambda maps: [path.unlink() for path in sorted(maps.iterdir())[1:]],
            f"{TEST_IMAGES - 1} masks have no prediction in",
        ),
        (
            lambda maps: [shutil.copy(next(maps.iterdir()), maps / f"stranger{name}.png") for name in "ab"],
            "2 predictions have no mask in",
        ),
        (lambda maps: next(maps.iterdir()).write_bytes(b"no image"), "cannot be decoded as an image"),
        (lambda maps: shutil.rmtree(maps), " not found"),
    ],
)
def test_maps_that_do_not_match(maps: Path, masks: Path, tmp_path: Path, spoil: Any, complaint: str) -> None:
    """Scores over a part of a test set compare with nothing: what is missing is named, and nothing is written."""
    spoil(maps)
    outcome = run("--predictions", maps, "--masks", masks, "--out", tmp_path / "out")

    assert outcome.exit_code == 3
    assert complaint in outcome.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "neither a checkpoint nor --predictions"),
        ("best.pth --predictions maps --masks masks", "both a checkpoint, best.pth, and"),
        ("--predictions maps", "requires --masks, the folder of the ground-truth masks"),
        ("--predictions maps --masks masks --dataset-path data", "--dataset-path is only for checkpoints"),
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
