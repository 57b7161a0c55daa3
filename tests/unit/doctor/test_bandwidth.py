"""What an all_reduce is said to move."""

from __future__ import annotations

import pytest
import torch

from camoxpert_cli.doctor import selftests
from camoxpert_cli.doctor.selftests import all_reduce_bandwidth
from camoxpert_cli.parallel.world import World
from tests.helpers.thread_ranks import in_threads


@pytest.mark.parametrize(("ranks", "factor"), [(2, 1.0), (4, 1.5)])
def test_bandwidth(monkeypatch: pytest.MonkeyPatch, ranks: int, factor: float) -> None:
    """Of a ring: 2 (n - 1) / n times the data, four bytes a value, in a second for each of ten sums."""
    monkeypatch.setattr(selftests, "_CPU_VALUES", 1000)

    def measured(world: World) -> float:
        moments = iter((100.0, 110.0))
        return all_reduce_bandwidth(torch.device("cpu"), world, lambda: next(moments))

    assert in_threads(ranks, measured) == [factor * 4000] * ranks
