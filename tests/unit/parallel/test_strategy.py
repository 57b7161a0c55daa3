"""What depends on how devices work together; gradients of each are compared in the tests of DataParallel and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from camoxpert_cli.benchmark.options import STRATEGIES as COMPARED
from camoxpert_cli.config.schema import SETTINGS
from camoxpert_cli.engine.run import enter_phase, prepare
from camoxpert_cli.engine.step import StepOutput, TrainingStep
from camoxpert_cli.parallel.strategy import FOR_SEVERAL, STRATEGIES, Ddp, Dp, Strategy, StrategyName, processes_of
from camoxpert_cli.parallel.world import World
from tests.helpers.networks import small_network
from tests.helpers.tiny_data import tiny_plan

CPU = torch.device("cpu")


def test_every_strategy_can_be_asked_for() -> None:
    """The setting takes each by its name, and `auto`, which chooses from those for several devices."""
    assert set(STRATEGIES) == set(get_args(StrategyName))
    assert set(get_args(SETTINGS["run.strategy"].type)) == {"auto", *STRATEGIES}
    assert {"single", *FOR_SEVERAL} == set(STRATEGIES)
    assert set(FOR_SEVERAL) == set(COMPARED)


@pytest.mark.parametrize(("strategy", "expected"), [("single", 1), ("dp", 1), ("ddp", 4), ("auto", 1)])
def test_processes(strategy: str, expected: int) -> None:
    """Only ddp has one for each of four devices."""
    assert processes_of(strategy, 4) == expected


def test_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """DataParallel computes on all of them, a process of ddp on its own."""
    wrapped: list[Any] = []
    monkeypatch.setattr(nn, "DataParallel", lambda step, devices: wrapped.append(devices))
    several = [CPU, torch.device("meta")]
    step, network = nn.Identity(), small_network(num_experts=2)
    dp, ddp = (each(step, network, several, World()) for each in (Dp, Ddp))

    assert wrapped == [several]
    assert dp.devices == tuple(several)
    assert ddp.devices == (CPU,)


def test_the_wrapper_is_made_anew(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever other layers are trained, once; not where a phase trains what the one before it did."""
    wrapped: list[bool] = []
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run", epochs=4, use_ema=False))
    backbone = next(run.state.network.backbone.parameters())
    monkeypatch.setattr(Strategy, "wrap", lambda strategy: wrapped.append(backbone.requires_grad))
    for phase in run.phases:
        enter_phase(run, phase)
        enter_phase(run, phase)

    assert len(wrapped) == len(run.phases) == 4
    assert (wrapped[0], wrapped[-1]) == (False, True)


def test_a_rank_without_an_image() -> None:
    """It adds nothing to any sum, in shapes that fit those of the others, and has nothing to go back through.

    All that a step returns has a first dimension, along which DataParallel joins what its replicas return.
    """
    network = small_network(num_experts=2)
    strategy = Ddp(TrainingStep(network, True, None), network, [CPU], World())
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    some: StepOutput = strategy.forward(images, images[:, :1])
    none: StepOutput = strategy.forward(images[:0], images[:0, :1])

    assert isinstance(some, StepOutput)
    assert all(isinstance(each, torch.Tensor) and each.dim() >= 2 for each in some)
    assert none.terms.shape == (0, 4)
    assert (none.chosen.shape, none.probability.shape) == (some.chosen.shape, some.probability.shape)
    assert not any(each.any() or each.requires_grad for each in none)
