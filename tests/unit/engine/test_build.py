"""Where a run's images come from when nobody says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from camoxpert_cli.config.schema import DataConfig, ModelConfig
from camoxpert_cli.engine import build
from camoxpert_cli.engine.build import build_network, open_data
from camoxpert_cli.errors import DataError
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.run_folder import RunFolder


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
    assert f"using {place}, the only data set" in capsys.readouterr().err


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
