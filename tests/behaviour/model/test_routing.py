"""Routing by plan: what a gate says plays no part, and everything else stays as it is."""

from __future__ import annotations

import itertools
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from camoxpert_cli.engine.step import TrainingStep
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.routing import costliest, only, spread
from tests.helpers.networks import masks_for, random_images, small_network, without_dropout
from tests.helpers.replicas import Replicas
from tests.helpers.whole_batch import combine

# Of five images, three experts of seven each.
ROUTES = [{0, 1, 2}, {3, 4, 5}, {6, 0, 1}, {2, 3, 4}, {5, 6, 0}]


def chosen_by(network: CamoXpert, images: Tensor) -> list[list[set[int]]]:
    """The experts of each image, layer by layer."""
    with torch.no_grad():
        return [[set(experts) for experts in layer.chosen.tolist()] for layer in network(images).routing]


def step_of(network: CamoXpert) -> TrainingStep:
    without_dropout(network)
    return TrainingStep(network, deep_supervision=True, autocast_dtype=None).train()


def bytes_of(count: int) -> tuple[Tensor, Tensor]:
    images = random_images(count)
    return (images * 50 + 120).clamp(0, 255).to(torch.uint8), masks_for(images).to(torch.uint8)


def test_images_take_turns() -> None:
    """Each image goes to the next K experts in every layer, from `first` on; afterwards gates choose again."""
    network, images = small_network(), random_images(5)
    before = chosen_by(network, images)
    with spread(network):
        spread_out = chosen_by(network, images)
    with spread(network, first=3):
        later = chosen_by(network, images[:2])

    assert spread_out == [ROUTES] * 4
    assert later == [ROUTES[3:]] * 4
    assert chosen_by(network, images) == before != spread_out


def test_only() -> None:
    """All images go to the experts that are given for a layer."""
    network = small_network()
    choice = [[0, 1, 2], [4, 5, 6], [0, 3, 6], [1, 2, 5]]
    with only(network, choice):
        chosen = chosen_by(network, random_images(2))

    assert chosen == [[set(experts)] * 2 for experts in choice]


def test_half_precision() -> None:
    """Under autocast the same experts are chosen."""
    network = small_network()
    with spread(network), torch.autocast("cpu", torch.float16):
        assert chosen_by(network, random_images(5)) == [ROUTES] * 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gates_that_overflow(value: float) -> None:
    """Where what a gate says is no number, the same experts are chosen all the same."""
    network = small_network()
    for layer in network.moe_layers:
        nn.init.constant_(layer.get_submodule("gate.1").get_parameter("bias"), value)
    with spread(network):
        assert chosen_by(network, random_images(5)) == [ROUTES] * 4


def test_a_copy_made_inside() -> None:
    """It is routed alike, also where its weights move on."""
    network, images = small_network(), random_images(2)
    with spread(network):
        other = deepcopy(network)
        for parameter in network.parameters():
            parameter.data.neg_()

        assert chosen_by(other, images) == chosen_by(network, images) == [ROUTES[:2]] * 4


def test_gates_still_learn() -> None:
    """The loss is finite, and every gate gets a gradient from it."""
    step = step_of(small_network())
    with spread(step.network):
        total = combine(step(*bytes_of(3)), step.network.top_k).total
        torch.autograd.backward(total)

    assert total.isfinite()
    gates = [parameter for layer in step.network.moe_layers for parameter in layer.get_submodule("gate").parameters()]
    assert all(gate.grad is not None and gate.grad.isfinite().all() and gate.grad.any() for gate in gates)


def test_gradient_checkpointing() -> None:
    """The second forward pass routes as the first: gates are asked once, and gradients are those without it."""
    gradients = []
    said: list[list[Tensor]] = [[] for _ in range(4)]
    for checkpointing in (False, True):
        step = step_of(small_network("test_efficientnet", 4, gradient_checkpointing=checkpointing).double())
        step.normalize.double()
        with spread(step.network):
            for layer, logits in zip(step.network.moe_layers, said, strict=True):
                logits.clear()
                layer.get_submodule("gate").register_forward_hook(
                    lambda gate, inputs, output, logits=logits: logits.append(output.detach())
                )
            torch.autograd.backward(combine(step(*bytes_of(2)), step.network.top_k).total)
        gradients.append([parameter.grad for parameter in step.network.parameters()])

    assert [len(logits) for logits in said] == [1] * 4
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


def test_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas of DataParallel, which run side by side, each spread their own images over all experts."""
    step = step_of(small_network("test_efficientnet"))
    with spread(step.network):
        output = Replicas(step, 2, monkeypatch)(*bytes_of(6))
        torch.autograd.backward(combine(output, step.network.top_k).total)

    # Three images of each replica: nine choices.
    assert output.chosen.tolist() == [[[2, 2, 1, 1, 1, 1, 1]] * 4] * 2


def kept_by_layer(network: CamoXpert, images: Tensor, choice: list[list[int]]) -> list[int]:
    """Bytes that a forward pass of the whole network keeps, of each mixture layer and of the rest, where all images
    make this choice; no storage twice, and no parameter or buffer.
    """
    known = {each.untyped_storage().data_ptr() for each in (*network.parameters(), *network.buffers())}
    kept: list[dict[int, int]] = [{} for _ in range(5)]
    at = [4]

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and not any(storage.data_ptr() in each for each in kept):
            kept[at[0]][storage.data_ptr()] = storage.nbytes()
        return tensor

    def enter(number: int) -> Any:
        return lambda *_: at.__setitem__(0, number)

    hooks = [
        hook
        for number, layer in enumerate(network.moe_layers)
        for hook in (layer.register_forward_pre_hook(enter(number)), layer.register_forward_hook(enter(4)))
    ]
    with only(network, choice), saved_tensors_hooks(count, lambda tensor: tensor):
        output = network(images)
    for hook in hooks:
        hook.remove()
    assert output.logits.grad_fn is not None  # the graph was there until here
    return [sum(each.values()) for each in kept]


def test_the_costliest() -> None:
    """Of all choices of two experts of five none keeps more for the backward pass of the whole network.

    Counted in its own forward passes: layer by layer the most, and as much in the rest whatever is chosen.
    """
    network, images = small_network("test_efficientnet", 5).train(), random_images(1)
    found = costliest(network, images, None)
    kept = kept_by_layer(network, images, found)
    others = [kept_by_layer(network, images, [list(choice)] * 4) for choice in itertools.combinations(range(5), 2)]

    assert len(others) == 10
    for layer in range(4):
        of_layer = [other[layer] for other in others]
        assert kept[layer] == max(of_layer) > min(of_layer)
    assert {other[4] for other in others} == {kept[4]}


def test_the_costliest_leaves_no_trace() -> None:
    """Weights, running statistics, modes and hooks of the network are what they were."""
    network = small_network("test_efficientnet", 2).train()
    network.set_trainable(0, deep_heads=True)  # with a part in eval mode
    before = deepcopy(network)
    costliest(network, random_images(2), None)

    for name, value in network.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]), name
    assert [module.training for module in network.modules()] == [module.training for module in before.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_the_costliest_in_half_precision() -> None:
    """Under autocast experts are measured on what their layer gets there: its number of images, size and dtype."""
    network = small_network(num_experts=1).train()
    seen: set[object] = set()
    network.moe_layers[0].get_submodule("experts.0").register_forward_pre_hook(
        lambda module, inputs: seen.add((inputs[0].dtype, inputs[0].requires_grad, tuple(inputs[0].shape)))
    )
    costliest(network, random_images(2), torch.bfloat16)

    assert (torch.bfloat16, True, (2, 32, 16, 16)) in seen
