"""Gradients that are summed during the backward pass; what ranks make of them is compared in the tests of ranks."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.futures import Future

from camoxpert_cli.parallel.overlap import Overlap
from camoxpert_cli.parallel.world import World, member


@dataclass(frozen=True)
class RecordingWorld(World):
    """A world of one rank that remembers what it was asked for, and sums as three ranks with the same gradients do."""

    calls: list[str] = field(default_factory=list)

    def require_all(self) -> None:
        self.calls.append("require_all")

    def start_all_reduce(self, tensor: Tensor) -> Future[list[Tensor]]:
        self.calls.append("sum")
        done: Future[list[Tensor]] = Future()
        done.set_result([3 * tensor])
        return done


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RecordingWorld]:
    with member(0, 1, 0, 1, f"file://{tmp_path / 'store'}", timedelta(seconds=60)):
        yield RecordingWorld()


class Step(nn.Module):
    """Uses the first layer always, the second never, and the third where it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.never, self.sometimes = (nn.Linear(2, 1) for _ in range(3))
        self.register_buffer("counter", torch.zeros(()))

    def forward(self, x: Tensor, asks: bool = False) -> Tensor:
        y: Tensor = self.always(x)
        return (y + self.sometimes(x)).sum() if asks else y.sum()


def gradients(step: Step) -> list[list[float] | None]:
    return [None if each.grad is None else each.grad.flatten().tolist() for each in step.parameters()]


def test_what_is_summed(world: RecordingWorld) -> None:
    """The gradients it was made for, over all batches of a step at its end; others stay a rank's own, or None.

    Buffers are each rank's own.
    """
    step = Step()
    overlap = Overlap(step, [*step.always.parameters()], world)
    assert not overlap.module.modules_buffers
    x = torch.tensor([[1.0, 2.0]])
    for asks, sums, expected in (
        (False, False, [[1, 2], [1], None, None, None, None]),
        (True, True, [[6, 12], [6], None, None, [1, 2], [1]]),
    ):
        with overlap.batch(sums=sums):
            overlap.module(x, asks).backward()
        assert gradients(step) == expected
    step.zero_grad()
    with overlap.batch(sums=True):
        overlap.module(x).backward()

    assert gradients(step) == [[3, 6], [3], None, None, None, None]
    assert all(each.grad is None or each.grad.stride() == each.stride() for each in step.parameters())


def test_all_are_there_before_buckets_are_settled(world: RecordingWorld) -> None:
    """torch agrees on them before the batch that follows the first sum, in a collective that waits for a GPU."""
    step = Step()
    overlap = Overlap(step, [*step.always.parameters()], world)
    for sums in (False, True, False, True, True):
        world.calls.append("batch")
        with overlap.batch(sums=sums):
            overlap.module(torch.ones(1, 2)).backward()

    assert " ".join(world.calls) == "batch batch sum batch require_all batch require_all sum batch sum"


class Head(nn.Module):
    """The weight (1, 2, 1, 1) of a convolution, used as a matrix; two of its dimensions may have any stride."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 1).as_strided((1, 2, 1, 1), (2, 1, 2, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight.flatten(1).t()).sum()


def test_strides_that_mean_nothing(world: RecordingWorld) -> None:
    """torch's warning about them, which would be in the output of every run, is left out, and the sum is right."""
    head = Head()
    overlap = Overlap(head, [*head.parameters()], world)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # not once per process
    try:
        for _ in range(2):
            head.zero_grad()
            with overlap.batch(sums=True):
                overlap.module(torch.tensor([[1.0, 2.0]])).backward()
    finally:
        torch.set_warn_always(always)

    assert head.weight.grad is not None
    assert head.weight.grad.flatten().tolist() == [3, 6]


def test_other_errors_stay(world: RecordingWorld) -> None:
    """What fails in a batch is not taken for a rank that is lost."""
    step = Step()
    overlap = Overlap(step, [*step.always.parameters()], world)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), overlap.batch(sums=True):
        overlap.module(torch.ones(1, 3))


def test_it_is_freed(world: RecordingWorld) -> None:
    """With its buckets, which are as large as the gradients, once another takes its place."""
    step = Step()
    overlap = Overlap(step, [*step.always.parameters()], world)
    for _ in range(3):
        with overlap.batch(sums=True):
            overlap.module(torch.ones(1, 2)).backward()
    module = weakref.ref(overlap.module)
    del overlap

    assert module() is None
