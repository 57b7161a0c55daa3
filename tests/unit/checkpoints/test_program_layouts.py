from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import load_model, uses_ema, validated_size
from camoxpert_cli.checkpoints.program_layouts import (
    architecture_of,
    ema_in,
    epochs_complete,
    layout_of,
    said_architecture,
    said_size,
    weights_of,
)
from camoxpert_cli.config.eval_options import Weights
from camoxpert_cli.errors import CheckpointError
from tests.helpers.checkpoints import Stub, original, refusal, save, write_content
from tests.helpers.compare import differences

OTHER = {"moe_layers.0.weight": torch.ones(3)}


@pytest.fixture(scope="module")
def network() -> Stub:
    return Stub()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_original_format(tmp_path: Path, content: dict[str, Any], network: Stub, prefix: str) -> None:
    """The original program's dict is read with its NumPy score and prefixes; its average has no buffers of its own."""
    read = read_checkpoint(save(original(content, network, prefix), tmp_path))
    parameters = {name for name, _ in network.named_parameters()}
    averaged = {name: content["ema" if name in parameters else "network"][name] for name in content["network"]}

    assert read["best_iou"] == 0.25
    assert differences(weights_of(read, ema=False), dict(content["network"])) == []
    assert differences(weights_of(read, ema=True), averaged) == []


def test_no_ema(tmp_path: Path, content: dict[str, Any]) -> None:
    """Asking for an average that is not there is an error, never the bare weights."""
    path = tmp_path / "last.pth"
    write_content(path, {**content, "ema": None})

    assert ema_in(read_checkpoint(path)) is None
    with pytest.raises(CheckpointError, match="contains no EMA weights"):
        load_model(path, ema=True)


def test_which_weights_are_meant(content: dict[str, Any]) -> None:
    """The average where there is one, unless the weights themselves are asked for; it is never asked for in vain."""
    without = {**content, "ema": None}
    asked: tuple[Weights | None, ...] = (None, "ema", "model")

    assert [uses_ema(content, Path("last.pth"), weights) for weights in asked] == [True, True, False]
    assert [uses_ema(without, Path("last.pth"), weights) for weights in (None, "model")] == [False, False]
    with pytest.raises(CheckpointError, match=r"last\.pth contains no EMA weights"):
        uses_ema(without, Path("last.pth"), "ema")


@pytest.mark.parametrize(
    ("entries", "program"),
    [
        ({"network": OTHER, "model_state_dict": {**OTHER}}, "camox"),
        ({"model_state_dict": OTHER, "ema_state_dict": None}, "the original CamoXpert"),
        ({"state_dict": OTHER, "pytorch-lightning_version": "2"}, "Lightning"),
        ({"state_dict": OTHER, "metadata": {}}, "a .safetensors file"),
        ({"state_dict": OTHER, "state_dict_ema": {**OTHER}}, "another program"),
        ({"generator": {"net": OTHER}, "optimizer": {}}, "another program"),
        (OTHER, "a plain state dict"),
    ],
)
def test_programs_are_told_apart(entries: Any, program: str) -> None:
    """By which entries hold weights, and by what only one program writes beside them."""
    layout = layout_of(entries)

    assert layout is not None
    assert layout.program == program
    assert (ema_in(entries) is not None) == ("state_dict_ema" in entries)


@pytest.mark.parametrize("args", [None, {}, {"backbone": "test_resnet"}, {"num_experts": 2}, "--backbone x"])
def test_options_that_do_not_tell_the_network(content: dict[str, Any], network: Stub, args: Any) -> None:
    """Backbone and number of experts are taken together or not at all."""
    assert said_architecture({**original(content, network), "args": args}) is None
    assert architecture_of({**original(content, network), "args": args}) is None


@pytest.mark.parametrize(
    "experts",
    [
        0,
        -1,
        65,
        pytest.param(10**5000, id="a long number"),
        pytest.param("9" * 5000, id="a long text"),
        "many",
        2.0,
        None,
        True,
    ],
)
def test_numbers_of_experts_that_are_none(experts: Any) -> None:
    """What a file says is checked before a network is built of it; metadata of .safetensors is text."""
    said = {"state_dict": OTHER, "metadata": {"backbone": "test_resnet", "num_experts": experts}}

    assert said_architecture(said) is None
    assert said_architecture({**said, "metadata": {"backbone": "test_resnet", "num_experts": "64"}}) == (
        "test_resnet",
        64,
    )


def test_where_the_size_is_said() -> None:
    """In camox's settings, the original program's options, or the metadata of an exported file."""
    assert said_size({"config": {"data": {"img_size": 352}}, "args": {"img_size": 96}}) == 352
    assert said_size({"config": {"data": {"img_size": None}}, "args": {"img_size": 96}}) == 96
    assert said_size({"metadata": {"img_size": "64"}}) == 64
    assert said_size({"config": {"data": {"img_size": 352, "eval_img_size": 448}}}) == 448
    assert said_size({"config": {"data": {"img_size": 352, "eval_img_size": None}}}) == 352


@pytest.mark.parametrize(
    "size",
    [
        None,
        0,
        -64,
        63,
        4097,
        10**6,
        pytest.param(10**5000, id="a long number"),
        pytest.param("9" * 5000, id="a long text"),
        "large",
        True,
    ],
)
def test_unknown_size(content: dict[str, Any], size: Any) -> None:
    """A checkpoint that does not say its size, or says what is none, asks for `--img-size`."""
    with pytest.raises(CheckpointError, match=r"last\.pth does not specify the image size") as caught:
        validated_size({**content, "config": {"data": {"img_size": size}}}, Path("last.pth"))

    assert "--img-size" in caught.value.hint


def test_epochs_that_are_complete(content: dict[str, Any], network: Stub) -> None:
    """camox counts epochs that are complete; other programs store the number, from 0, of the one they had finished."""
    assert epochs_complete(content) == 3
    assert epochs_complete(original(content, network)) == 3
    assert epochs_complete({**content, "epoch": None}) == 0


def test_unknown_backbone(tmp_path: Path, content: dict[str, Any]) -> None:
    """A backbone that the timm here does not know is named."""
    error = refusal(save({**content, "backbone": "resnet_of_tomorrow"}, tmp_path))

    assert "timm has no backbone named resnet_of_tomorrow" in error.message


def test_mixed_prefixes(content: dict[str, Any]) -> None:
    """Weights of which only some carry a wrapper's prefix are refused."""
    first, *others = content["network"]
    mixed = {f"module.{first}": content["network"][first], **{key: content["network"][key] for key in others}}
    with pytest.raises(CheckpointError, match="mixed"):
        weights_of({**content, "network": mixed}, ema=False)


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/resnet18", "hf_hub:timm/resnet18", "local-dir:/tmp", "timm/resnet18", "resnet18./tmp", "../x"]
)
def test_a_backbone_from_elsewhere(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file cannot have a network fetched, or read from another place."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it asks for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("timm.models._hub.load_model_config_from_hf", refuse)

    assert "cannot be built" in refusal(save({**content, "backbone": name}, tmp_path)).message
