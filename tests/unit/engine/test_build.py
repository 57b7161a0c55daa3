"""Where a run's images come from when nobody says."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest

from camoxpert_cli.config.schema import Config, DataConfig, ModelConfig, RunConfig, TrainConfig
from camoxpert_cli.engine import build
from camoxpert_cli.engine.build import build_network, open_data
from camoxpert_cli.engine.epochs import rate_at, steps_in_epoch
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.errors import DataError
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.run_folder import RunFolder
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
