"""What ends one rank ends all: each decides by what it and the others know."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

from camoxpert_cli.engine.clock import Clock
from camoxpert_cli.engine.stopping import Stop, Stopping
from camoxpert_cli.engine.time_limit import Deadline, Reserve
from camoxpert_cli.parallel.world import World

SIGNALLED = Stop("stopped by SIGTERM", 143)
NO_TIME = Stop("stopped by the time limit of 1h", 0)


@dataclass(frozen=True)
class Pair(World):
    """This process and a partner, which has found `other`."""

    other: Stop | None = None

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        return tensor.clamp(min=int(self.other is not None))

    def all_gather(self, item: Any) -> list[Any]:
        return [item, self.other]


def clock(other: Stop | None, left: float = 1000.0) -> Clock:
    """With so many seconds left, of which a step takes 10, validation 20 and saving 2 x 5, and a fifth more each."""
    reserve = Reserve(1.0, 10, saving=5.0, validation=20.0, step=10.0)
    return Clock(Stopping(Deadline(time.monotonic() + left, "the limit")), reserve, Pair(other=other))


@pytest.mark.parametrize("other", [SIGNALLED, NO_TIME])
def test_the_reason_of_another_rank(other: Stop) -> None:
    """A rank that could go on ends where its partner has to, and for that reason."""
    assert clock(other).stop_before_step() == clock(other).stop_before_batch() == other


def test_a_signal_outranks_the_clock() -> None:
    """Where one has no time left and the other was asked to end, both end as asked."""
    assert clock(SIGNALLED, left=0.0).stop_before_step() == SIGNALLED


def test_nobody_has_to_end() -> None:
    assert clock(None).stop_before_step() is None
    assert clock(None).stop_before_batch() is None


@pytest.mark.parametrize(("left", "step", "batch"), [(49.0, False, False), (47.0, True, False), (11.0, True, True)])
def test_what_is_kept_for_the_end(left: float, step: bool, batch: bool) -> None:
    """A step needs time for itself, validation and saving; a batch that is scored only what is saved after it."""
    ends = clock(None, left)

    assert (ends.stop_before_step() is not None) == step
    assert (ends.stop_before_batch() is not None) == batch
