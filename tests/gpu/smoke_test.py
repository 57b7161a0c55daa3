"""Two ranks add up a tensor of each, on DEVICE and between their CPUs.

python -m tests.gpu.smoke_test DEVICE
"""

from __future__ import annotations

import sys

import torch

from camoxpert_cli.parallel.world import World
from tests.helpers.ranks import in_ranks


def add_up(world: World, device: str) -> list[list[float]]:
    """The values in the sum of a tensor of 1 from rank 0 and one of 2 from rank 1: on `device`, on CPUs."""
    sums = [world.all_reduce(torch.full((1000,), world.rank + 1.0, device=each)) for each in (device, "cpu")]
    return [sorted(set(each.tolist())) for each in sums]


def main() -> None:
    from tests.gpu.smoke_test import add_up  # by the name under which the ranks find it

    found = in_ranks(2, add_up, sys.argv[1])
    print(found)
    assert found == [[[3.0], [3.0]]] * 2


if __name__ == "__main__":
    main()
