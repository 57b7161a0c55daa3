"""What ranks make of their gradients and of BatchNorm's statistics, on ranks that are threads."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.parallel import gradients
from camoxpert_cli.parallel.gradients import all_reduce_gradients, average_statistics, leave_idle_experts
from camoxpert_cli.parallel.world import World
from tests.helpers.compare import differences
from tests.helpers.networks import small_network
from tests.helpers.thread_ranks import in_threads


@pytest.mark.parametrize("bucket", [1, 7, 10**6])
def test_gradients_are_summed(monkeypatch: pytest.MonkeyPatch, bucket: int) -> None:
    """Also where a rank lacks one that another has; what no rank has stays None. Buckets change nothing."""
    monkeypatch.setattr(gradients, "_BUCKET", bucket)
    shapes = [(2, 3), (4,), (), (1, 5), (3,)]

    def summed(world: World) -> list[Tensor | None]:
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
        for at, parameter in enumerate(parameters):
            # The second is of nobody, the fourth of rank 1 alone, the last of rank 0 alone.
            if at not in {1, 3 if world.rank == 0 else 4}:
                parameter.grad = torch.arange(parameter.numel()).view_as(parameter) + 10.0 ** (at + world.rank)
        all_reduce_gradients(parameters, world)
        return [parameter.grad for parameter in parameters]

    expected = [
        [[11.0, 13, 15], [17, 19, 21]],
        None,
        1100.0,
        [[10000.0, 10001, 10002, 10003, 10004]],
        [10000.0, 10001, 10002],
    ]
    for found in in_threads(2, summed):
        assert [None if each is None else each.tolist() for each in found] == expected


def test_one_rank_has_its_own() -> None:
    """Without others nothing is summed, and a gradient that is missing stays so."""
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    parameters[0].grad = own = torch.ones(2)
    all_reduce_gradients(parameters, World())

    assert parameters[0].grad is own
    assert parameters[1].grad is None


@pytest.mark.parametrize(("images", "share"), [((3, 1), 0.25), ((1, 0), 0.0), ((2, 2), 0.5)])
def test_statistics_are_averaged(images: tuple[int, int], share: float) -> None:
    """Every image of a step counts alike, whichever rank saw it; layers that rest keep theirs to the bit."""

    def averaged(world: World) -> nn.Module:
        network = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm1d(3), nn.BatchNorm2d(2, track_running_stats=False))
        frozen = nn.BatchNorm2d(2).eval()
        network.append(frozen)
        for layer in (network[0], network[1], frozen):
            assert isinstance(layer.running_mean, Tensor)
            assert isinstance(layer.running_var, Tensor)
            assert isinstance(layer.num_batches_tracked, Tensor)
            layer.running_mean.fill_(world.rank)
            layer.running_var.fill_(1 + 2 * world.rank)
            layer.num_batches_tracked.fill_(7 if images[world.rank] else 6)
        average_statistics(network, images[world.rank], world)
        return network

    for rank, network in enumerate(in_threads(2, averaged)):
        values = {name: buffer.float().mean().item() for name, buffer in network.named_buffers()}
        assert values == {
            **{"0.running_mean": share, "0.running_var": 1 + 2 * share, "0.num_batches_tracked": 7},
            **{"1.running_mean": share, "1.running_var": 1 + 2 * share, "1.num_batches_tracked": 7},
            **{"3.running_mean": rank, "3.running_var": 1 + 2 * rank},
            "3.num_batches_tracked": 7 if images[rank] else 6,
        }


class Alone(World):
    """A rank that asks the others nothing."""

    def all_reduce(self, tensor: Tensor) -> Tensor:
        raise AssertionError("the others were asked")

    all_reduce_max = all_reduce


def test_a_network_that_rests() -> None:
    """Without a layer that trains there is nothing to average: no rank waits for others, or changes what it has."""
    network = nn.Sequential(nn.BatchNorm2d(2)).eval()
    before = copy.deepcopy(network.state_dict())
    average_statistics(network, 1, Alone(0, 2))

    assert differences(network.state_dict(), before) == []
    with pytest.raises(AssertionError, match="were asked"):
        average_statistics(network.train(), 1, Alone(0, 2))


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
