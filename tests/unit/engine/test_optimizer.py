from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from camoxpert_cli.checkpoints.format import OptimizerState
from camoxpert_cli.engine.optimizer import build_optimizer, load_state, set_learning_rate
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert


@pytest.fixture
def network() -> CamoXpert:
    torch.manual_seed(0)
    return CamoXpert(create_backbone("test_resnet"), "test_resnet", 1)


def optimizer_over(network: CamoXpert, backbone_stages: int, previous: AdamW | None = None) -> AdamW:
    network.set_trainable(backbone_stages, deep_heads=True)
    return build_optimizer(network, weight_decay=0.01, backbone_lr_factor=0.1, previous=previous)


def groups(optimizer: AdamW) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in optimizer.param_groups}


def step(network: CamoXpert, optimizer: AdamW) -> None:
    """One update for whatever requires a gradient, which differs from number to number."""
    for parameter in network.parameters():
        parameter.grad = parameter.detach() + 0.1 if parameter.requires_grad else None
    optimizer.step()


def identities(parameters: Iterable[Tensor]) -> set[int]:
    return {id(parameter) for parameter in parameters}


@pytest.mark.parametrize("backbone_stages", [0, 1, 2, 4])
def test_groups_hold_what_is_trained(network: CamoXpert, backbone_stages: int) -> None:
    """Each trained parameter is in exactly one group, that of its part of the network; no frozen one is in any."""
    optimizer = optimizer_over(network, backbone_stages)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    in_backbone = identities(network.backbone.parameters())

    assert len(held) == len(identities(held))
    assert identities(held) == identities(each for each in network.parameters() if each.requires_grad)
    assert all(
        (id(parameter) in in_backbone) == (name == "backbone")
        for name, group in groups(optimizer).items()
        for parameter in group["params"]
    )
    assert list(groups(optimizer)) == ["network", "backbone"][: 2 if backbone_stages else 1]


@pytest.mark.parametrize("rate", [1e-6, 3e-4, 1.0])
def test_backbone_gets_its_part_of_every_rate(network: CamoXpert, rate: float) -> None:
    """Whatever the rate, the backbone has a tenth of it and keeps its weight decay."""
    optimizer = optimizer_over(network, 4)
    set_learning_rate(optimizer, rate)

    assert groups(optimizer)["network"]["lr"] == rate
    assert groups(optimizer)["backbone"]["lr"] == pytest.approx(rate / 10)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}


def test_unfreezing_trains_the_new_parameters(network: CamoXpert) -> None:
    """After each unfreezing a step moves every parameter that is trained now, and none that is frozen."""
    optimizer: AdamW | None = None
    for backbone_stages in (0, 1, 2, 4):
        optimizer = optimizer_over(network, backbone_stages, optimizer)
        set_learning_rate(optimizer, 1e-2)
        before = [parameter.detach().clone() for parameter in network.parameters()]
        step(network, optimizer)

        for parameter, old in zip(network.parameters(), before, strict=True):
            assert torch.equal(parameter, old) != parameter.requires_grad


def test_unfreezing_keeps_moments(network: CamoXpert) -> None:
    """Parameters that were trained before keep both moments and their step count; the new ones begin at none."""
    old = optimizer_over(network, 1)
    set_learning_rate(old, 1e-2)
    for _ in range(3):
        step(network, old)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    moments = [{name: value.clone() for name, value in old.state[parameter].items()} for parameter in trained]

    new = optimizer_over(network, 2, old)

    assert identities(new.state) == identities(trained)
    for parameter, state in zip(trained, moments, strict=True):
        assert state["step"] == 3
        assert state["exp_avg"].any()
        assert all(torch.equal(new.state[parameter][name], value) for name, value in state.items())


def test_steps_are_those_of_plain_adamw(network: CamoXpert) -> None:
    """Two steps move the weights as torch's AdamW does without fused kernels, each group at its own rate."""
    twin = deepcopy(network)
    fused = optimizer_over(network, 2)
    set_learning_rate(fused, 1e-2)
    plain = optimizer_over(twin, 2)
    groups = [{**group, "fused": None} for group in fused.state_dict()["param_groups"]]
    plain.load_state_dict({"state": {}, "param_groups": groups})
    for each, optimizer in ((network, fused), (twin, plain)):
        for _ in range(2):
            step(each, optimizer)

    assert fused.param_groups[0]["fused"]
    # Measured 6e-8 where a step is 1e-2.
    for own, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=2e-6)


def test_goes_on_with_moments_of_another_kind(network: CamoXpert) -> None:
    """A state that was saved without fused kernels, its moments channels first, gives the same next step."""
    twin = deepcopy(network)
    optimizer = optimizer_over(network, 4)
    set_learning_rate(optimizer, 1e-2)
    step(network, optimizer)
    state = deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group["fused"] = None
    for moments in state["state"].values():
        moments.update({name: value.contiguous() for name, value in moments.items()})
    twin.load_state_dict(network.state_dict())
    other = optimizer_over(twin, 4)
    load_state(other, cast(OptimizerState, state))
    for each, own in ((network, optimizer), (twin, other)):
        step(each, own)

    assert other.param_groups[0]["fused"]
    assert all(torch.equal(one, two) for one, two in zip(network.parameters(), twin.parameters(), strict=True))


def test_a_fresh_optimizer_starts_at_no_rate(network: CamoXpert) -> None:
    """Until a rate is set a step changes nothing, so that one forgotten would show."""
    optimizer = optimizer_over(network, 4)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    step(network, optimizer)

    assert all(torch.equal(parameter, old) for parameter, old in zip(network.parameters(), before, strict=True))
