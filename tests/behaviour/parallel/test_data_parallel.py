"""DataParallel, on the CPU: several replicas make the step of one network, and the experts they leave idle stay put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.engine.optimizer import parameters_of
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.train import train_epoch
from camoxpert_cli.engine.training_steps import backward
from camoxpert_cli.parallel.strategy import Dp
from camoxpert_cli.parallel.world import World
from tests.helpers.replicas import use_replicas
from tests.helpers.tiny_data import TRAINING_IMAGES, tiny_plan

SETTINGS: dict[str, Any] = {"num_experts": 7, "skip_stage1": True, "progressive_unfreeze": False, "use_ema": False}


def run_of(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, replicas: int, **settings: Any) -> Run:
    """A run in float64 whose network is called through so many replicas, each with its own part of a batch."""
    run, _ = prepare(tiny_plan(data, folder, **SETTINGS, **settings))
    run.strategy.step.double()
    if replicas > 1:
        use_replicas(run, replicas, monkeypatch)
    enter_phase(run, run.phases[0])
    # Statistics of a batch are those of each replica's part; here none looks at them.
    run.state.network.eval()
    return run


def reduce_gradients(run: Run, chosen: torch.Tensor) -> None:
    assert run.state.optimizer is not None
    run.strategy.reduce_gradients(parameters_of(run.state.optimizer), chosen)


def gate_of(layer: Any) -> Any:
    """The convolution of a mixture's gate."""
    return layer.gate[1]


def experts_of(layer: Any) -> Any:
    return layer.experts


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 2, (count, 1, 64, 64), dtype=torch.uint8, generator=generator)


def test_gradients_are_those_of_one_network(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uneven and too small batches: losses and gradients of the whole batch, balance included, to 1e-9.

    Before `Dp.reduce_gradients` experts that no image chose have gradients of zero, and none afterwards.
    """
    one = run_of(tiny_data, tmp_path / "one", monkeypatch, 1)
    two = run_of(tiny_data, tmp_path / "two", monkeypatch, 2)
    for images in (3, 1):
        for run in (one, two):
            run.state.network.zero_grad()
        (losses, chosen), (losses_two, chosen_two) = (
            backward(run, *batch(images), 0, images, 1.0) for run in (one, two)
        )

        assert torch.allclose(losses_two, losses, rtol=1e-9, atol=1e-12)
        assert torch.equal(chosen_two, chosen)
        idle = idle_of(two, chosen)
        assert idle
        assert all(each.grad is not None and not each.grad.any() for each in idle)
        reduce_gradients(two, chosen_two)
        pairs = zip(two.state.network.named_parameters(), one.state.network.parameters(), strict=True)
        for (name, ours), theirs in pairs:
            if theirs.grad is None:
                assert ours.grad is None, name
            else:
                assert ours.grad is not None, name
                assert (ours.grad - theirs.grad).abs().max() <= 1e-9 * max(1.0, float(theirs.grad.abs().max())), name


def idle_of(run: Run, chosen: torch.Tensor) -> list[torch.nn.Parameter]:
    """The parameters of experts that no image chose."""
    return [
        parameter
        for layer, counts in zip(run.state.network.moe_layers, chosen.tolist(), strict=True)
        for expert, count in zip(experts_of(layer), counts, strict=True)
        if count == 0
        for parameter in expert.parameters()
    ]


def test_idle_experts_do_not_decay(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over an epoch with a strong decay, an expert that no image of any batch chooses keeps its weights."""
    settings = {
        **{"weight_decay": 10.0, "stage2_lr": 1e-2, "scheduler": "none"},
        **{"val_fraction": 1 - 4 / TRAINING_IMAGES, "stage2_batch_size": 2, "warmup_epochs": 0},
    }
    run = run_of(tiny_data, tmp_path / "run", monkeypatch, 2, **settings)
    for layer in run.state.network.moe_layers:
        torch.nn.init.zeros_(gate_of(layer).weight)
        with torch.no_grad():
            gate_of(layer).bias.copy_(torch.tensor([9.0, 8.0, 7.0, -9.0, -9.0, -9.0, -9.0]))
    before = {name: value.clone() for name, value in run.state.network.named_parameters()}
    train_epoch(run, run.phases[0], run.phases[0].first)

    moved = {name for name, value in run.state.network.named_parameters() if not torch.equal(value, before[name])}
    assert any(".experts.0." in name for name in moved)
    assert not any(f".experts.{number}." in name for name in moved for number in (3, 4, 5, 6))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch's own DataParallel needs a GPU")
def test_on_a_gpu(tiny_data: Path, tmp_path: Path) -> None:
    """torch's DataParallel with the same GPU twice gives the gradients of one network, within float32's rounding."""
    gradients = []
    for doubled in (False, True):
        settings = {**SETTINGS, "device": "cuda", "precision": "fp32"}
        run, _ = prepare(tiny_plan(tiny_data, tmp_path / str(doubled), **settings))
        enter_phase(run, run.phases[0])
        if doubled:
            run.strategy = Dp(run.strategy.step, run.state.network, [run.device] * 2, World())
        run.state.network.eval()
        _, chosen = backward(run, *batch(3), 0, 3, 1.0)
        reduce_gradients(run, chosen)
        gradients.append([parameter.grad for parameter in run.state.network.parameters()])

    for one, two in zip(*gradients, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert torch.allclose(one, two, rtol=1e-3, atol=1e-5)
