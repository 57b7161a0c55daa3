"""What ranks make of their gradients, on ranks that are threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.parallel import gradients
from camoxpert_cli.parallel.gradients import leave_idle_experts, sum_over_ranks
from camoxpert_cli.parallel.world import World
from tests.helpers.networks import small_network
from tests.helpers.thread_ranks import in_threads


@pytest.mark.parametrize("bucket", [1, 7, 10**6])
def test_gradients_are_summed(monkeypatch: pytest.MonkeyPatch, bucket: int) -> None:
    """Also where a rank lacks one that another has; what no rank has stays None. Buckets change nothing.

    Other tensors are summed in place. Each rank learns how many had a gradient.
    """
    monkeypatch.setattr(gradients, "_BUCKET", bucket)
    shapes = [(2, 3), (4,), (), (1, 5), (3,)]

    def summed(world: World) -> tuple[list[Tensor | None], list[Tensor], list[int]]:
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
        for at, parameter in enumerate(parameters):
            # The second is of nobody, the fourth of rank 1 alone, the last of rank 0 alone.
            if at not in {1, 3 if world.rank == 0 else 4}:
                parameter.grad = torch.arange(parameter.numel()).view_as(parameter) + 10.0 ** (at + world.rank)
        others = [torch.tensor([1.0, 2.0 + world.rank]), torch.tensor(float(world.rank))]
        counts = sum_over_ranks(parameters, others, world)
        return [parameter.grad for parameter in parameters], others, counts

    expected = [
        [[11.0, 13, 15], [17, 19, 21]],
        None,
        1100.0,
        [[10000.0, 10001, 10002, 10003, 10004]],
        [10000.0, 10001, 10002],
    ]
    for found, others, counts in in_threads(2, summed):
        assert [None if each is None else each.tolist() for each in found] == expected
        assert [each.tolist() for each in others] == [[2.0, 5.0], 1.0]
        assert counts == [2, 0, 2, 1, 1]


def test_layouts_stay() -> None:
    """A gradient has the strides of its parameter, as fused AdamW requires, and each value its place."""

    def summed(world: World) -> nn.Parameter:
        weight = nn.Parameter(torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last))
        weight.grad = torch.arange(120.0).view(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
        sum_over_ranks([nn.Parameter(torch.zeros(1)), weight], [], world)
        return weight

    for weight in in_threads(2, summed):
        assert weight.grad is not None
        assert weight.grad.stride() == weight.stride() != torch.zeros(2, 3, 4, 5).stride()
        assert torch.equal(weight.grad, 2 * torch.arange(120.0).view(2, 3, 4, 5))


def test_nothing_to_sum() -> None:
    """Ranks meet all the same, over a value: a rank that failed in its backward pass is missed here."""
    exchanged: list[int] = []

    class Watched(World):
        def all_reduce(self, tensor: Tensor) -> Tensor:
            exchanged.append(tensor.numel())
            return tensor

    assert sum_over_ranks([], [], Watched(0, 2)) == []
    assert exchanged == [1]


def test_idle_experts() -> None:
    """Those that no image of a step chose lose their gradients, layer by layer; one image is enough to keep them."""
    network = small_network(num_experts=3)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    layers = len(network.moe_layers)
    chosen = torch.tensor([[0.0, 1, 5]] + [[2.0, 0, 1]] * (layers - 1))
    leave_idle_experts(network, chosen)
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    idle = [f"moe_layers.{layer}.experts.{1 if layer else 0}." for layer in range(layers)]

    assert without == {name for name, _ in network.named_parameters() if name.startswith(tuple(idle))}
    assert without
