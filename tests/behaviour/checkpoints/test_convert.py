from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.checkpoints.convert import convert_checkpoint
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.program_layouts import architecture_of, outline, weights_of
from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.checkpoints import original, save
from tests.helpers.compare import differences
from tests.helpers.places import COMPAT


def test_network_is_recognised(tmp_path: Path, content: dict[str, Any]) -> None:
    """A bare state dict does not say what it is; its sizes do, and a dry run compares it with that network."""
    source = save(content["network"], tmp_path)
    said = CliRunner().invoke(app, ["convert-ckpt", str(source), str(tmp_path / "out.pth"), "--dry-run"]).stdout

    assert "Network: test_resnet with 2 experts, all tensors match" in said
    assert f"Would be written: {tmp_path / 'out.pth'}" in said
    assert not (tmp_path / "out.pth").exists()


def test_dry_run(tmp_path: Path, content: dict[str, Any], network: CamoXpert) -> None:
    """A dry run compares with the network that the file names, and writes nothing."""
    file = original(content, network, "module.")
    del file["model_state_dict"]["module.final_conv.3.bias"]
    file["model_state_dict"] |= {"module.final_conv.extra": torch.ones(2), "module.backbone.more.weight": torch.ones(2)}
    file["model_state_dict"]["module.final_conv.0.bias"] = torch.ones(7)
    result = convert_checkpoint(save(file, tmp_path), tmp_path / "out.pth", dry_run=True)

    assert not result.written
    assert not (tmp_path / "out.pth").exists()
    assert result.differences == (
        ("final_conv.0.bias", "7", "32"),
        ("final_conv.3.bias", "missing", "1"),
        ("backbone.more.weight", "2", "missing"),
    )
    assert result.others == ("final_conv.extra",)


def test_to_the_original_program(tmp_path: Path, content: dict[str, Any], network: CamoXpert) -> None:
    """`--to camoxpert` gives what the original program reads: its names, epochs from 0, an average of parameters."""
    entries = {"epoch": 18, "scores": {"epoch": 18, "iou": 0.5}, "config": {"train": {"lr": 0.01}}}
    convert_checkpoint(save({**content, **entries}, tmp_path), tmp_path / "out.pth", to="camoxpert")
    converted = torch.load(tmp_path / "out.pth", weights_only=True)
    args = {"command": "train", "lr": 0.01, "backbone": "test_resnet", "num_experts": 2}

    assert list(converted) == ["epoch", "model_state_dict", "ema_state_dict", "best_iou", "args"]
    assert (converted["epoch"], converted["best_iou"], converted["args"]) == (17, 0.5, args)
    assert differences(dict(converted["model_state_dict"]), dict(network.state_dict())) == []
    averaged = {name: 2 * value.detach() for name, value in network.named_parameters()}
    assert differences(converted["ema_state_dict"], averaged) == []


@pytest.mark.parametrize("change", [{"args": None, "epoch": "x"}, {"args": "text", "best_iou": [1]}])
def test_strange_options(tmp_path: Path, content: dict[str, Any], network: CamoXpert, change: dict[str, Any]) -> None:
    """Options that are none do not keep the weights from becoming the original program's: sizes tell the network."""
    source = save({**original(content, network), **change}, tmp_path)
    convert_checkpoint(source, tmp_path / "out.pth", to="camoxpert")
    converted = torch.load(tmp_path / "out.pth", weights_only=True)

    assert differences(dict(converted["model_state_dict"]), dict(network.state_dict())) == []
    assert (converted["args"]["backbone"], converted["args"]["num_experts"]) == ("test_resnet", 2)


@pytest.mark.skipif(not COMPAT.is_dir(), reason="the checkpoints of the original program are not beside the repository")
def test_original_file_both_ways(tmp_path: Path) -> None:
    """A real file of the original program under `module.` goes to bare keys and back with every bit of its weights."""
    before = read_checkpoint(COMPAT / "camoxpert_xxs_7experts_module_prefix.pth")
    convert_checkpoint(COMPAT / "camoxpert_xxs_7experts_module_prefix.pth", tmp_path / "bare.pth")
    convert_checkpoint(tmp_path / "bare.pth", tmp_path / "module.pth", add=True)
    bare, module = read_checkpoint(tmp_path / "bare.pth"), read_checkpoint(tmp_path / "module.pth")

    assert not any(key.startswith("module.") for key in bare["model_state_dict"])
    assert all(key.startswith("module.") for key in module["model_state_dict"])
    assert not any(key.startswith("module.") for key in module["ema_state_dict"])
    for content in (bare, module):
        assert architecture_of(content) == architecture_of(before)
        for ema in (False, True):
            assert differences(weights_of(content, ema), weights_of(before, ema)) == []


@pytest.mark.parametrize("wrong", ["nan", "infinite", "whole numbers", "missing", "another network"])
def test_what_could_not_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    """Nothing is written that could not be loaded, unless it shall stay as it is; what was there before stays."""
    shapes = outline("test_resnet", 2).state_dict()
    whole = {name: torch.zeros_like(value, device="cpu") for name, value in shapes.items()}
    name, target = "final_conv.3.weight", tmp_path / "out.pth"
    args = {"backbone": "test_resnet", "num_experts": 2}
    convert_checkpoint(save({"net": whole, "args": args}, tmp_path), target)
    before = target.read_bytes()
    assert differences(dict(torch.load(target)["net"]), whole) == []
    value = {"nan": torch.full_like(whole[name], float("nan")), "whole numbers": whole[name].to(torch.int8)}
    value["infinite"] = torch.full_like(whole[name], float("inf"))
    weights = {**whole, name: value.get(wrong, whole[name])}
    if wrong == "missing":
        del weights[name]
    args["num_experts"] = 3 if wrong == "another network" else 2
    source = save({"net": weights, "args": args}, tmp_path)
    with pytest.raises(CheckpointError, match="the converted file could not be loaded") as caught:
        convert_checkpoint(source, target, overwrite=True)

    assert "--as-is" in caught.value.hint
    assert name in caught.value.message + caught.value.details or wrong == "another network"
    assert target.read_bytes() == before
    assert convert_checkpoint(source, target, overwrite=True, as_is=True).written
    assert "could not be loaded; written anyway because of --as-is" in " ".join(capsys.readouterr().err.split())
    found = torch.load(target)["net"]
    assert wrong == "nan" or differences(dict(found), weights) == []


def test_what_stays_is_not_said_to_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Converted as it is, a network keeps what a profiler had added to it; otherwise one note tells of that."""
    shapes = outline("test_resnet", 2).state_dict()
    state = {name: torch.zeros_like(value, device="cpu") for name, value in shapes.items()}
    args = {"backbone": "test_resnet", "num_experts": 2}
    source = save({"net": {**state, "backbone.total_ops": torch.zeros(1)}, "args": args}, tmp_path)
    said = []
    for as_is in (True, False):
        convert_checkpoint(source, tmp_path / "out.pth", as_is=as_is, overwrite=True)
        said.append(
            (capsys.readouterr().err.count("ignored"), "backbone.total_ops" in torch.load(tmp_path / "out.pth")["net"])
        )

    assert said == [(0, True), (1, False)]
