"""How fast training is said to be, with steps that take given times by a clock of the test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.launch import trial as trial_module
from camoxpert_cli.launch.trial import Trial, Watch
from camoxpert_cli.parallel.world import World
from tests.helpers.thread_ranks import in_threads

STAGE = Stage(2, 0, 5, 6, 1e-3, 0)


@dataclass
class Rank:
    """A rank whose steps of 12 images over all ranks take `step` seconds; the first of them takes nine more."""

    world: World
    step: float
    trial: Trial
    now: float = 0.0
    signs: int = 0
    sums: list[float] = field(default_factory=list)

    def steps(self, waiting: Any = None) -> Iterator[int]:
        self.now += 9
        while True:
            self.now += self.step
            if waiting is not None:
                waiting.waited += self.step / 4
            yield 12

    def alive(self) -> None:
        self.signs += 1

    def training(self, stage: Stage, epoch: int, samples: int) -> tuple[Any, Iterator[int]]:
        """A loader's batches, for which a quarter of each step is waited, and their sizes."""
        loader: Any = _Loader()
        return loader, iter(lambda: 12, None)

    def reduce(self, *_: object) -> None:
        """The first sum takes five seconds, others as many as they are: 1, 2, 3 ..."""
        self.sums.append(self.now)
        self.now += 5 if len(self.sums) == 1 else len(self.sums) - 1

    @property
    def watch(self) -> Watch:
        run: Any = SimpleNamespace(
            world=self.world,
            strategy=SimpleNamespace(
                devices=[torch.device("cpu")], communication_is_measurable=True, reduce_gradients=self.reduce
            ),
            state=SimpleNamespace(
                progress=SimpleNamespace(samples=5),
                optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(2))]),
                network=SimpleNamespace(moe_layers=[1], num_experts=2),
            ),
            feed=SimpleNamespace(training=self.training, workers=0),
            data=SimpleNamespace(validation=range(6)),
        )
        return Watch(run, self.trial, self.alive, lambda: self.now)


class _Loader:
    waited = 0.0

    def __iter__(self) -> _Loader:
        return self

    def __next__(self) -> tuple[None, None]:
        return None, None


def trial(**settings: Any) -> Trial:
    return Trial(Config(), 2, repeats=3, **settings)


def test_rates() -> None:
    """Images over all ranks, by the time of the slowest, and nothing of what starting takes."""

    def measure(world: World) -> tuple[int, list[float], int]:
        rank = Rank(world, 1.0 + world.rank, trial(steps=4))
        steps = rank.steps()
        count = rank.watch.warm_up(steps, 3)
        return count, rank.watch.rates(steps, count), rank.signs

    assert in_threads(2, measure) == [(4, [6.0] * 3, 3 + 3 * 4)] * 2


@pytest.mark.parametrize(("seconds", "expected"), [(30.0, 5), (29.0, 4), (1.0, 1), (1e6, 50)])
def test_how_many_steps(seconds: float, expected: int) -> None:
    """As many as fit into a repeat's share of the seconds, the same on all ranks."""

    def count(world: World) -> int:
        rank = Rank(world, 1.0 + world.rank, trial(seconds=seconds))
        return rank.watch.warm_up(rank.steps(), 3)

    assert in_threads(2, count) == [expected] * 2


def test_with_images() -> None:
    """The share of the time in which ranks waited for images is that of the measured steps, over all ranks."""

    def measure(world: World) -> tuple[list[float], float]:
        rank = Rank(world, 1.0 + world.rank, trial(steps=4))
        watch = rank.watch
        loaders: list[Any] = []
        training = rank.training

        def remember(*arguments: Any, **settings: Any) -> Any:
            loader, sizes = training(*arguments, **settings)
            loaders.append(loader)
            return loader, sizes

        watch.run.feed.training = remember  # type: ignore[method-assign]
        return watch.with_images(STAGE, lambda batches: rank.steps(loaders[0]), at_least=6)

    for rates, share in in_threads(2, measure):
        assert rates == [6.0] * 3
        assert share == pytest.approx(1 / 4)


@pytest.mark.parametrize(("ranks", "expected"), [(1, 0.0), (2, 2.0)])
def test_communication(ranks: int, expected: float) -> None:
    """The median of the sums after the first, which makes connections; one process has nobody to sum with."""
    assert in_threads(ranks, lambda world: Rank(world, 1.0, trial()).watch.communication()) == [expected] * ranks


def test_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """All held-out images count, once; what the first time takes does not."""
    calls: list[float] = []

    def validate(run: Any) -> None:
        calls.append(rank.now)
        rank.now += 7 if len(calls) == 1 else 2

    monkeypatch.setattr(trial_module, "validate", validate)
    rank = Rank(World(), 1.0, trial())

    assert rank.watch.validation() == 3.0
