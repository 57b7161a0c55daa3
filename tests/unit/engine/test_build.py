"""Where a run's images come from when nobody says."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camoxpert_cli.config.schema import Config, DataConfig, ModelConfig, RunConfig, TrainConfig
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.sampling import NO_NEGATIVES, Negatives
from camoxpert_cli.engine import build
from camoxpert_cli.engine.build import RunData, build_network, open_data
from camoxpert_cli.engine.epochs import rate_at, steps_in_epoch
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.errors import DataError
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.image_files import noise, write
from tests.helpers.tiny_data import TEST_IMAGES, TEST_SET, TRAINING_IMAGES


@pytest.fixture
def kaggle_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of /kaggle/input."""
    folder = tmp_path / "input"
    folder.mkdir()
    monkeypatch.setattr(build, "KAGGLE_INPUT", folder)
    return folder


def test_the_only_data_set_of_a_session_is_used_and_named(
    kaggle_input: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --dataset-path, a single data set below the session's input is taken, two folders deep too."""
    place = kaggle_input / "cod10k-dataset" / "COD10K-v3"
    shutil.copytree(tiny_data, place)
    data = open_data(DataConfig(), 0, RunFolder(tmp_path / "run"))

    assert {pair.image.is_relative_to(place) for pair in data.train} == {True}
    assert f"using {place}, the only dataset" in capsys.readouterr().err


def test_several_data_sets_of_a_session_are_listed(kaggle_input: Path, tiny_data: Path, tmp_path: Path) -> None:
    """With more than one to choose from none is chosen: the error lists them all and exits with 3."""
    for name in ("one", "two"):
        shutil.copytree(tiny_data, kaggle_input / name)
    with pytest.raises(DataError) as caught:
        open_data(DataConfig(), 0, RunFolder(tmp_path / "run"))

    assert all(str(kaggle_input / name) in caught.value.message for name in ("one", "two"))
    assert caught.value.exit_code == 3


def test_no_data_at_all_points_to_the_quickstart(kaggle_input: Path, tmp_path: Path) -> None:
    """With nothing to train on, the error says how to begin without data."""
    with pytest.raises(DataError, match="none was found under") as caught:
        open_data(DataConfig(), 0, RunFolder(tmp_path / "run"))

    assert "--preset quickstart" in caught.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("pretrained", [True, False])
def test_only_a_pretrained_backbone_keeps_its_statistics(monkeypatch: pytest.MonkeyPatch, pretrained: bool) -> None:
    """Statistics of random weights are worth nothing: those are left to training, also where weights follow."""
    monkeypatch.setattr(build, "create_pretrained_backbone", lambda name, weights: create_backbone(name))
    model = ModelConfig(backbone="test_resnet", num_experts=2, pretrained=pretrained)
    networks = [build_network(model, 0, weights_follow=follow) for follow in (True, False)]

    assert [network.keep_backbone_statistics for network in networks] == [pretrained, pretrained]


@pytest.mark.parametrize("folder", ["Imgs", "GT"])
def test_the_digest_tells_other_pictures(tiny_data: Path, tmp_path: Path, folder: str) -> None:
    """An image, or a mask, of another size makes it another training set, with which no run goes on."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    settings = DataConfig(dataset_path=(str(data),), val_fraction=0.25)
    before = open_data(settings, 0, RunFolder(tmp_path / "run"))
    with (data / "TrainDataset" / folder / f"{before.train[0].image.stem}.png").open("ab") as file:
        file.write(b" ")

    assert open_data(settings, 0, RunFolder(tmp_path / "run")).digest != before.digest


def test_validation_pictures_of_their_own(tiny_data: Path, tmp_path: Path) -> None:
    """Nothing is held out where they are given. They belong to the run as those that it trains on do."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    own = data / "TestDataset" / TEST_SET
    settings = DataConfig(dataset_path=(str(data),), val_images=(str(own / "Imgs"),), val_masks=(str(own / "GT"),))
    found = open_data(settings, 0, RunFolder(tmp_path / "run"))

    assert (len(found.train), len(found.validation)) == (TRAINING_IMAGES, TEST_IMAGES)
    assert set(found.all_training) == {*found.train, *found.validation}
    assert found.train == sorted(found.train, key=lambda pair: pair.name)
    with found.validation[0].mask.open("ab") as file:
        file.write(b" ")
    assert open_data(settings, 0, RunFolder(tmp_path / "run")).full_digest != found.full_digest


@pytest.mark.parametrize("part", ["TrainDataset", f"TestDataset/{TEST_SET}"])
def test_masks_that_say_nothing_are_found_before_training(tiny_data: Path, tmp_path: Path, part: str) -> None:
    """In what is trained on, and in what is scored only at the end."""
    shutil.copytree(tiny_data, tmp_path / "data")
    for path in (tmp_path / "data" / part / "GT").iterdir():
        mask = cv2.imread(str(path), 0)
        assert mask is not None
        cv2.imwrite(str(path), mask // 255)

    with pytest.raises(DataError, match="contains no value high enough to mark an object, only 0 and 1"):
        open_data(DataConfig(dataset_path=(str(tmp_path / "data"),)), 0, RunFolder(tmp_path / "run"))


def test_all_devices_share_a_step() -> None:
    """An epoch has as many steps as its images fill batches of all GPUs, accumulation included."""
    config = Config(train=TrainConfig(batch_size=4, accumulation_steps=3), run=RunConfig(gpus=2))

    assert steps_in_epoch(config, build_phases(config)[0].stage, 0, 100) == 5


def test_warm_up_counts_epochs() -> None:
    """The rate of stage 2 rises to its peak over the steps of `warmup_epochs`."""
    train = TrainConfig(batch_size=8, stage1_epochs=1, epochs=9, warmup_epochs=2, lr=1.0, scheduler="none")
    config = Config(train=train)
    stage = build_phases(config)[-1].stage
    rates = [rate_at(config, stage, 20, epoch, step) for epoch in (1, 2, 3) for step in range(5)]

    assert rates == pytest.approx([min(1.0, step / 10) for step in range(1, 16)])


def opened(data: Path, tmp_path: Path, **settings: Any) -> RunData:
    return open_data(DataConfig(dataset_path=(str(data),), val_fraction=0.25, **settings), 7, RunFolder(tmp_path / "r"))


def names(pairs: Sequence[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


def test_negatives_join(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They come after the images with an object, which are those of a run without; the same fraction is held out."""
    sea = tmp_path / "sea"
    for index in range(8):
        write(sea / f"n{index}.png", noise(index))
    plain = opened(tiny_data, tmp_path)
    found = opened(tiny_data, tmp_path, negatives=(str(sea),))
    half = opened(tiny_data, tmp_path, negatives=(str(sea),), negatives_share=0.5)

    assert (found.objects, found.negatives, found.validation_negatives) == (len(plain.train), Negatives(6, 2), 2)
    assert (plain.negatives, plain.validation_negatives, plain.images_per_epoch) == (NO_NEGATIVES, 0, len(plain.train))
    assert (found.train[: found.objects], found.validation[:-2]) == (plain.train, plain.validation)
    held_out = [*names(found.train[found.objects :]), *names(found.validation[-2:])]
    assert sorted(held_out) == [f"n{index}" for index in range(8)]
    assert set(found.all_training) == {*found.train, *found.validation}
    assert (half.negatives, half.images_per_epoch) == (Negatives(6, 8), 16)
    assert len({plain.digest, found.digest, half.digest}) == 3
    assert plain.digest in opened(tiny_data, tmp_path).digest


def test_a_share_of_nothing(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A share without any image of the kind is an oversight, and a warning tells."""
    opened(tiny_data, tmp_path, negatives_share=0.3)

    assert "--negatives-share has no effect" in " ".join(capsys.readouterr().err.split())


def test_a_single_negative(tiny_data: Path, tmp_path: Path) -> None:
    """It is trained on; there is none to hold out."""
    write(tmp_path / "sea" / "n.png", noise(1))
    found = opened(tiny_data, tmp_path, negatives=(str(tmp_path / "sea"),))

    assert (found.negatives, found.validation_negatives) == (Negatives(1, 1), 0)


def test_pairs_without_an_object(tiny_data: Path, tmp_path: Path) -> None:
    """NonCAM images are negatives by name, and empty masks if that is asked for, otherwise images like any other."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    for name in ("COD10K-NonCAM-1-x", "COD10K-NonCAM-2-x", "black", "blank"):
        write(data / "TrainDataset" / "Imgs" / f"{name}.png", noise(3, 40, 50))
        write(data / "TrainDataset" / "GT" / f"{name}.png", np.zeros((40, 50), np.uint8))
    usual, noncam, empty = (
        opened(data, tmp_path, **each) for each in ({}, {"include_noncam": True}, {"empty_as_negatives": True})
    )

    assert (usual.negatives.available, len(usual.all_training)) == (0, TRAINING_IMAGES + 2)
    assert names(noncam.train[noncam.objects :] + noncam.validation[-1:]) == ["COD10K-NonCAM-2-x", "COD10K-NonCAM-1-x"]
    assert sorted(names(empty.train[empty.objects :] + empty.validation[-1:])) == ["black", "blank"]


def test_nothing_but_negatives(tmp_path: Path) -> None:
    """Without an object in any image there is nothing to learn."""
    for index in range(3):
        write(tmp_path / "data" / "TrainDataset" / "Imgs" / f"{index}.png", noise(index))
        write(tmp_path / "data" / "TrainDataset" / "GT" / f"{index}.png", np.zeros((24, 32), np.uint8))
    with pytest.raises(DataError, match="none of the 3 training images shows an object"):
        opened(tmp_path / "data", tmp_path, empty_as_negatives=True)
