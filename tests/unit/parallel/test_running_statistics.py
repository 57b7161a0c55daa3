"""BatchNorm's running statistics on several ranks, which are threads."""

from __future__ import annotations

import copy

import pytest
from torch import Tensor, nn

from camoxpert_cli.parallel.running_statistics import RunningStatistics
from camoxpert_cli.parallel.world import World
from tests.helpers.compare import differences
from tests.helpers.thread_ranks import in_threads


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
        statistics = RunningStatistics(network)
        if not images[world.rank]:
            statistics.count_missed_batch()
        own = statistics.weighted(images[world.rank])
        for each in own:
            world.all_reduce(each)
        statistics.divide(own, sum(images))
        return network

    for rank, network in enumerate(in_threads(2, averaged)):
        values = {name: buffer.float().mean().item() for name, buffer in network.named_buffers()}
        assert values == {
            **{"0.running_mean": share, "0.running_var": 1 + 2 * share, "0.num_batches_tracked": 7},
            **{"1.running_mean": share, "1.running_var": 1 + 2 * share, "1.num_batches_tracked": 7},
            **{"3.running_mean": rank, "3.running_var": 1 + 2 * rank},
            "3.num_batches_tracked": 7 if images[rank] else 6,
        }


def test_a_network_that_rests() -> None:
    """Without a layer that trains there is nothing to average, and nothing changes; that may change between steps."""
    network = nn.Sequential(nn.BatchNorm2d(2)).eval()
    before = copy.deepcopy(network.state_dict())
    statistics = RunningStatistics(network)
    statistics.count_missed_batch()
    statistics.divide(statistics.weighted(0), 1)

    assert differences(network.state_dict(), before) == []
    network.train()
    assert len(statistics.weighted(1)) == 2
