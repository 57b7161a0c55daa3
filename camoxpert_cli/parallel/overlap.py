"""Sum gradients over ranks while the backward pass still computes others, with torch's DistributedDataParallel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from camoxpert_cli.parallel.world import World, peer_lost


class Overlap:
    """DistributedDataParallel around a step, for those of its parameters that every batch uses on every rank.

    Gradients of these `parameters` are summed, not averaged, because losses are already divided by the number of all
    images; they are bitwise identical on all ranks. Call `module` in place of the step.
    """

    def __init__(self, step: nn.Module, parameters: Collection[nn.Parameter], world: World) -> None:
        self.parameters = frozenset(parameters)
        self._world = world
        self._sums = 0  # at most 2: until then the buckets are not final
        self._failures: list[RuntimeError] = []
        others = [name for name, parameter in step.named_parameters() if parameter not in self.parameters]
        # Buffers too: each rank has its own, and torch would send those of rank 0 to all before every batch.
        buffers = [name for name, _ in step.named_buffers()]
        ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model  # untyped
        ignore(step, [*others, *buffers])
        # It concerns dimensions of size 1, whose strides mean nothing; torch copies such a gradient, correctly.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # All ranks have built or loaded the same weights.
        self.module = DistributedDataParallel(step, init_sync=False, gradient_as_bucket_view=True)
        self.module.register_comm_hook(None, _summing(world, self._failures))

    @contextmanager
    def batch(self, *, sums: bool) -> Iterator[None]:
        """Enter the forward and backward pass of a batch; `sums` if it ends a step in which every rank has images.

        Raises PeerLostError if another rank is lost.
        """
        if self._sums == 1:
            self._world.require_all()  # after the first backward pass, torch agrees on the order of the buckets
        try:
            if sums:
                self._sums = min(self._sums + 1, 2)
                yield
            else:
                with self.module.no_sync():
                    yield
        except RuntimeError as error:
            if not self._failures:
                raise
            raise peer_lost(self._failures[0]) from error


def _summing(world: World, failures: list[RuntimeError]) -> Callable[[object, Any], Future[Tensor]]:
    """Return a hook that sums a bucket, and notes why it could not.

    It must not refer to the module, which would then never be freed: torch's reducer hides the cycle from Python.
    """

    def total(future: Future[list[Tensor]]) -> Tensor:
        try:
            return future.value()[0]
        except RuntimeError as error:
            failures.append(error)
            raise

    # Without annotations: torch compares them with classes.
    return lambda state, bucket: world.start_all_reduce(bucket.buffer()).then(total)
