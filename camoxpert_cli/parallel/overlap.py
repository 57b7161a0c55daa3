"""Sum gradients over ranks while the backward pass still computes others, with torch's DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from camoxpert_cli.parallel.world import World


class Overlap:
    """DistributedDataParallel around a step, for those of its parameters that every batch uses on every rank.

    Gradients of these `parameters` are summed, not averaged, and bitwise identical on all ranks: losses are already
    divided by the number of all images. Call `module` in place of the step.
    """

    def __init__(self, step: nn.Module, parameters: Collection[nn.Parameter], world: World) -> None:
        self.parameters = frozenset(parameters)
        self._world = world
        self._sums = 0  # at most 2: until then buckets are not final
        others = [name for name, parameter in step.named_parameters() if parameter not in self.parameters]
        # Buffers too: each rank has its own, and torch would send those of rank 0 to all before every batch.
        buffers = [name for name, _ in step.named_buffers()]
        ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model  # untyped
        ignore(step, [*others, *buffers])
        # All ranks have built or loaded the same weights.
        self.module = DistributedDataParallel(step, init_sync=False, gradient_as_bucket_view=True)
        self.module.register_comm_hook(None, lambda _, bucket: world.start_all_reduce(bucket.buffer()))

    @contextmanager
    def batch(self, *, sums: bool) -> Iterator[None]:
        """Enter the forward and backward pass of a batch; `sums` if it ends a step in which every rank has images."""
        if self._sums == 1:
            self._world.require_all()  # after the first backward pass, torch agrees on the order of the buckets
        if sums:
            self._sums = min(self._sums + 1, 2)
            yield
        else:
            with self.module.no_sync():
                yield
