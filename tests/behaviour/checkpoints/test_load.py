from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import camoxpert_cli
from camoxpert_cli.checkpoints import load
from camoxpert_cli.checkpoints.load import load_model, load_weights
from camoxpert_cli.checkpoints.program_layouts import outline
from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.checkpoints import content_of, original, refusal, save, write_content
from tests.helpers.compare import differences
from tests.helpers.networks import random_images, small_network
from tests.helpers.places import COMPAT

# Checkpoints of the original program with the logits they must give lie beside the repository.
ORIGINALS = ["camoxpert_xxs_7experts", "camoxpert_xxs_7experts_module_prefix"]


def worst(output: Tensor, expected: Tensor) -> float:
    return (output - expected).abs().max().item()


@pytest.mark.skipif(not COMPAT.is_dir(), reason="the checkpoints of the original program are not beside the repository")
@pytest.mark.parametrize("name", ORIGINALS)
def test_original_checkpoints(name: str) -> None:
    """Checkpoints of the original program, under DataParallel too, give the logits that it gave."""
    expected = torch.load(COMPAT / f"{name}.expected.pt", weights_only=True)
    with torch.no_grad():
        output = camoxpert_cli.load_model(COMPAT / f"{name}.pth", ema=False)(expected["image"])
        ema = camoxpert_cli.load_model(str(COMPAT / f"{name}.pth"), device="cpu", ema=True)(expected["image"])

    # Float32 rounding alone moves these logits by 1e-4 (measured 1.5e-4), the other set of weights by 6 and more.
    assert worst(output.logits, expected["logits"]) < 5e-4
    assert worst(ema.logits, expected["ema_logits"]) < 5e-4
    assert worst(output.logits, expected["ema_logits"]) > 1
    for own, other in zip(output.deep_logits, expected["deep_logits"], strict=True):
        assert worst(own, other) < 5e-4
    for routing, chosen in zip(output.routing, expected["top_k_indices"], strict=True):
        assert torch.equal(routing.chosen, chosen)


def test_load_model(tmp_path: Path, content: dict[str, Any], network: CamoXpert) -> None:
    """In eval mode and with its size; with the average's weights or, by `ema=False`, the logits it gave before."""
    path = tmp_path / "best_model.pth"
    write_content(path, {**content, "config": {"data": {"img_size": 64}}})
    images = random_images(2)
    loaded, ema = load_model(path, ema=False), load_model(str(path))

    assert not any(module.training for module in loaded.modules())
    assert (loaded.img_size, ema.img_size) == (64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images).logits, network(images).logits)
    assert all(torch.equal(value, content["ema"][name]) for name, value in ema.state_dict().items())


@pytest.mark.parametrize("backbone", ["test_resnet", "test_maxvit"])
def test_as_if_it_had_been_built(tmp_path: Path, backbone: str) -> None:
    """A network that is loaded has the numbers of one that was built, those that no file holds too, and its layout."""
    built = small_network(backbone, 1)
    loaded = load_model(save({**content_of(built), "backbone": backbone, "num_experts": 1}, tmp_path), ema=False)
    before, after = ({**dict(each.named_parameters()), **dict(each.named_buffers())} for each in (built, loaded))

    assert differences(before, after) == []
    for name, value in before.items():
        assert (value.stride(), value.requires_grad) == (after[name].stride(), after[name].requires_grad)
    assert outline(backbone, 1).num_experts == 1
    assert next(outline(backbone, 1).parameters()).is_meta  # the next one does not get these weights


def test_no_memory_for_what_does_not_fit(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file may name a network of gigabytes: it is refused before there is memory for one."""
    monkeypatch.setattr(load, "_filled", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(CheckpointError, match="does not match edgenext_xx_small with 64 experts"):
        load_model(save({**content, "backbone": "edgenext_xx_small", "num_experts": 64}, tmp_path))

    assert all(each.is_meta for each in outline("edgenext_xx_small", 64).parameters())


@pytest.mark.parametrize(
    ("change", "in_file", "in_network"), [("missing", "missing", "1"), ("unknown", "1", "missing"), ("size", "2", "1")]
)
def test_nothing_is_loaded_in_part(
    content: dict[str, Any], network: CamoXpert, change: str, in_file: str, in_network: str
) -> None:
    """One tensor that does not fit is shown, and the network keeps every weight."""
    weights = {name: value + 1 for name, value in content["network"].items()}
    name = "final_conv.3.bias"
    if change == "missing":
        del weights[name]
    elif change == "unknown":
        name = "final_conv.4.bias"
        weights[name] = torch.ones(1)
    else:
        weights[name] = torch.ones(2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"with 2 experts: 1 tensor differs") as caught:
        load_weights(network, weights, Path("last.pth"))

    assert caught.value.details.splitlines()[1].split() == [name, in_file, in_network]
    assert "--backbone" in caught.value.hint
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("ema", [False, True])
def test_original_format(tmp_path: Path, content: dict[str, Any], network: CamoXpert, ema: bool) -> None:
    """The original program's average has no buffers of its own: those are the network's."""
    loaded = load_model(save(original(content, network, "module."), tmp_path), ema=ema).state_dict()
    parameters = {name for name, _ in network.named_parameters()}

    for name, value in content["network"].items():
        assert torch.equal(loaded[name], content["ema"][name] if ema and name in parameters else value)


def test_nameless_network(tmp_path: Path, content: dict[str, Any], network: CamoXpert) -> None:
    """A file that does not say which network it holds is recognised by its tensors' sizes, where these are known."""
    known = {**original(content, network), "args": None}
    strange = {name: value.flatten() for name, value in known["model_state_dict"].items()}
    error = refusal(save({**known, "model_state_dict": strange, "ema_state_dict": None}, tmp_path))

    assert "does not specify its backbone and number of experts" in error.message
    assert load_model(save(known, tmp_path)).backbone_name == "test_resnet"


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"num_experts": 3}, "moe_layers.0.gate.1.weight"),
        ({"backbone": "test_efficientnet"}, "backbone.conv_stem.weight"),
    ],
)
def test_another_network(tmp_path: Path, content: dict[str, Any], change: dict[str, Any], first: str) -> None:
    """Where weights and description do not fit, a short table shows how, and what would fit is named."""
    path = save({**content, **change}, tmp_path)
    name, experts = change.get("backbone", "test_resnet"), change.get("num_experts", 2)
    with pytest.raises(
        CheckpointError, match=rf"does not match {name} with {experts} experts: [0-9]+ tensors"
    ) as caught:
        load_model(path)
    lines = caught.value.details.splitlines()

    assert caught.value.hint == "--backbone test_resnet --num-experts 2, which the file matches"
    assert len(lines) <= 7
    assert lines[1].split()[0] == first
    assert lines[0].split("  ")[0] == "tensor"
    assert re.fullmatch(r"and [0-9]+ more", lines[-1])
