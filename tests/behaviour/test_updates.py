"""What the loop of `engine.train` makes of gradients: one step from several batches, averages, steps left out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.engine import run as run_module
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.step import LossValues
from camoxpert_cli.engine.train import MOST_SKIPPED_STEPS, optimizer_step, train, train_epoch
from camoxpert_cli.errors import TrainingError
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.batch_effects import train_without_batch_effects
from tests.helpers.compare import differences
from tests.helpers.tiny_data import tiny_plan

FINITE = LossValues(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


def run_in_hand(data: Path, folder: Path, **settings: Any) -> Run:
    """A run that is ready for its first step, in its first phase."""
    run = prepare(tiny_plan(data, folder, **settings))[0]
    enter_phase(run, run.phases[0])
    return run


def weights(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.state.network.state_dict().items()}


def state(run: Run) -> dict[str, Any]:
    """All that a step may change, copied."""
    assert run.state.optimizer is not None
    assert run.state.ema is not None
    optimizer = [
        {name: value.clone() for name, value in run.state.optimizer.state[parameter].items()}
        for parameter in run.state.network.parameters()
        if parameter in run.state.optimizer.state
    ]
    ema = {name: value.clone() for name, value in run.state.ema.network.state_dict().items()}
    return {"network": weights(run), "average": ema, "updates": run.state.ema.updates, "optimizer": optimizer}


def give_gradients(run: Run, value: float) -> None:
    """Fill the gradients of all that is trained, as a backward pass would, scaled."""
    assert run.state.optimizer is not None
    scaled = run.state.scaler.scale(torch.tensor(value)).item()
    for group in run.state.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, scaled)


@pytest.fixture
def without_batch_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm uses its running statistics and nothing is dropped, so that an image does not see its batch."""
    monkeypatch.setattr(CamoXpert, "train", train_without_batch_effects)


@pytest.mark.usefixtures("without_batch_effects")
@pytest.mark.parametrize(
    ("batch", "accumulation", "val_fraction", "joined"),
    [
        (2, 2, 0.25, [4, 4]),  # 2 + 2, 2 + 2
        (3, 2, 0.25, [6, 2]),  # 3 + 3, and a last group of one batch
        (3, 3, 0.25, [8]),  # 3 + 3 + 2: the last batch is uneven
        (2, 2, 0.36, [4, 3]),  # 2 + 2, 2 + 1: the last group is partial, its last batch uneven
    ],
)
def test_accumulated_step_is_the_joined_step(
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    accumulation: int,
    val_fraction: float,
    joined: list[int],
) -> None:
    """An epoch in groups of batches moves the weights as one in which each group is a single batch.

    BatchNorm and the balance term look at a whole batch, so they are held still: statistics in eval mode, and a single
    expert, for which the balance term is constant. The steps are plain gradient descent, for Adam divides by the size
    of a gradient and so blows up the rounding of tiny ones, and without clipping, which would hide a gradient that is a
    constant factor off.

    Both ways add up the same numbers in another order. The network computes in float64, but the losses do in float32:
    measured, weights differ by up to 3e-8 of their largest move (1.5e-5 with the network in float32); 1e-6 is allowed.
    A last group divided by a whole group's size would be off by a tenth or more.
    """
    monkeypatch.setattr(train_module, "CLIP_NORM", math.inf)
    moves = []
    ways: dict[str, dict[str, Any]] = {
        "groups": {"stage2_batch_size": batch, "accumulation_steps": accumulation},
        "joined": {"stage2_batch_size": batch * accumulation},
    }
    for name, settings in ways.items():
        settings |= {"skip_stage1": True, "progressive_unfreeze": False, "val_fraction": val_fraction, "use_ema": False}
        run = run_in_hand(tiny_data, tmp_path / name, num_experts=1, scheduler="none", stage2_lr=1e-2, **settings)
        assert run.state.optimizer is not None
        run.strategy.step.double()
        groups = [
            {key: group[key] for key in ("params", "name", "lr_factor")} for group in run.state.optimizer.param_groups
        ]
        run.state.optimizer = SGD(groups)  # type: ignore[assignment]
        before = weights(run)
        train_epoch(run, run.phases[0], 1)
        moves.append({key: value - before[key] for key, value in weights(run).items()})
        steps = [json.loads(line)["samples"] for line in run.folder.metrics.read_text(encoding="utf-8").splitlines()]
        assert steps == [sum(joined[: at + 1]) for at in range(len(joined))]

    largest = max(move.abs().max().item() for move in moves[1].values() if move.is_floating_point())
    assert largest > 1e-3
    for key, move in moves[0].items():
        assert torch.allclose(move.double(), moves[1][key].double(), rtol=0, atol=1e-6 * largest), key


def test_ema_is_updated_at_every_step(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The average takes in the network right after each step, that of the last partial group too; buffers included."""
    seen: list[dict[str, Tensor]] = []
    update = Ema.update

    def watched(self: Ema, network: CamoXpert) -> None:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        update(self, network)

    monkeypatch.setattr(Ema, "update", watched)
    # 8 images: a group of 3 + 3, and one of 2.
    run = run_in_hand(tiny_data, tmp_path / "run", batch_size=3, accumulation_steps=2)
    assert run.state.ema is not None
    expected = {name: value.double() for name, value in run.state.ema.network.state_dict().items()}
    train_epoch(run, run.phases[0], 0)
    for updates, values in enumerate(seen, start=1):
        decay = (1 + updates) / (10 + updates)
        expected = {name: decay * expected[name] + (1 - decay) * value.double() for name, value in values.items()}

    assert len(seen) == run.state.ema.updates == 2
    assert differences(seen[-1], weights(run)) == []
    for name, value in run.state.ema.network.state_dict().items():
        if value.is_floating_point():
            # Rounding of two updates, relative to the largest value: measured 1e-7.
            assert (value - expected[name]).abs().max() <= 1e-6 * expected[name].abs().max(), name
        else:
            assert torch.equal(value, seen[-1][name])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """It ends the run with exit code 6, epoch and checkpoint named, before weights, EMA or optimizer change."""
    backward, states = train_module.backward, []

    def poisoned(run: Run, *arguments: Any, **share: Any) -> tuple[Tensor, Tensor]:
        losses, chosen = backward(run, *arguments, **share)
        if run.state.progress.epoch == 1 and run.state.progress.samples == 3:
            states.append((run, state(run)))
            losses[0] = value
        return losses, chosen

    monkeypatch.setattr(train_module, "backward", poisoned)
    with pytest.raises(TrainingError, match=f"the loss became {value} in epoch 2 after 6 pictures") as caught:
        train(tiny_plan(tiny_data, tmp_path / "run"))
    run, before = states[0]

    # BatchNorm counts in the forward pass: its statistics alone have moved on.
    after = state(run)
    names = {name for name, _ in run.state.network.named_parameters()}
    for each in (before, after):
        each["network"] = {name: each["network"][name] for name in names}
    assert differences(before, after) == []
    assert caught.value.exit_code == 6
    assert str(tmp_path / "run" / "last.pth") in caught.value.message
    assert read_checkpoint(tmp_path / "run" / "last.pth")["epoch"] == 1
    assert not (tmp_path / "run" / "results.json").exists()


def test_loss_that_is_not_finite_in_the_first_epoch(tiny_data: Path, tmp_path: Path) -> None:
    """Where nothing was saved yet the message does not name a file that is not there."""
    run = run_in_hand(tiny_data, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"in epoch 1 .* no weights were saved before"):
        optimizer_step(run, 1e-3, FINITE._replace(total=math.nan), 0)


def test_step_that_overflows_changes_nothing(tiny_data: Path, tmp_path: Path) -> None:
    """With gradients that are not finite neither weights nor moments nor the average change, and none is left over."""
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1)
    give_gradients(run, 1.0)
    assert optimizer_step(run, 1e-3, FINITE, 0) is not None
    before = state(run)
    for value in (math.inf, math.nan):
        give_gradients(run, value)
        assert optimizer_step(run, 1e-3, FINITE, 0) is None

    assert differences(state(run), before) == []
    assert all(parameter.grad is None for parameter in run.state.network.parameters())
    give_gradients(run, 1.0)
    assert optimizer_step(run, 1e-3, FINITE, 0) is not None
    assert differences(state(run), before) != []


def test_only_many_skipped_steps_in_a_row_end_a_run(tiny_data: Path, tmp_path: Path) -> None:
    """Fifty skipped steps are borne, again after a good one; the fifty-first in a row ends the run, exit code 6."""
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1, use_ema=False)
    for value in [math.inf] * MOST_SKIPPED_STEPS + [1.0] + [math.nan] * MOST_SKIPPED_STEPS:
        give_gradients(run, value)
        optimizer_step(run, 1e-3, FINITE, 4)
    give_gradients(run, math.inf)
    with pytest.raises(TrainingError, match=r"51 steps in a row .* in epoch 5") as caught:
        optimizer_step(run, 1e-3, FINITE, 4)

    assert MOST_SKIPPED_STEPS == 50
    assert caught.value.exit_code == 6


def test_run_outlives_skipped_steps(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in which two steps overflow goes on to its end; metrics.jsonl has no gradient norm for them."""
    backward = train_module.backward

    def overflowing(run: Run, *arguments: Any, **share: Any) -> tuple[Tensor, Tensor]:
        done = backward(run, *arguments, **share)
        if run.state.progress.epoch == 0:
            run.state.network.final_conv[3].bias.grad = torch.tensor([math.inf])
        return done

    monkeypatch.setattr(train_module, "backward", overflowing)
    folder = train(tiny_plan(tiny_data, tmp_path / "run")).folder
    lines = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
    norms = [line["gradient_norm"] for line in lines if line["event"] == "step"]

    assert [norm is None for norm in norms] == [True, True, False, False, False]
    assert folder.results.exists()


def test_gradients_are_clipped(tiny_data: Path, tmp_path: Path) -> None:
    """Before a step the gradient's norm over all groups is brought down to one; what is told is the norm before."""
    run = run_in_hand(tiny_data, tmp_path / "run", skip_stage1=True, num_experts=1, use_ema=False)
    norms: list[float] = []
    assert run.state.optimizer is not None
    trained = [parameter for group in run.state.optimizer.param_groups for parameter in group["params"]]
    run.state.optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.nn.utils.get_total_norm([each.grad for each in trained]).item())
    )
    give_gradients(run, 10.0)
    told = optimizer_step(run, 1e-3, FINITE, 0)

    assert told == pytest.approx(10 * math.sqrt(sum(parameter.numel() for parameter in trained)), rel=1e-3)
    assert norms == pytest.approx([1.0], rel=1e-3)


def test_scaled_run(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose loss is scaled by a power of two, as in float16, ends with the very weights of one without."""
    plain = train(tiny_plan(tiny_data, tmp_path / "plain")).folder
    monkeypatch.setattr(run_module, "build_scaler", lambda dtype, device: GradScaler("cpu", init_scale=2.0**12))
    scaled = train(tiny_plan(tiny_data, tmp_path / "scaled")).folder
    first, second = read_checkpoint(plain.last), read_checkpoint(scaled.last)

    assert differences(first["network"], second["network"]) == []
    assert differences(first["training"]["optimizer"], second["training"]["optimizer"]) == []
    assert (first["training"]["scaler"], second["training"]["scaler"]["scale"]) == ({}, 2.0**12)


def test_overflow_lowers_the_scale(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that overflows under scaling is left out and halves the scale."""
    monkeypatch.setattr(run_module, "build_scaler", lambda dtype, device: GradScaler("cpu", init_scale=1024.0))
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1)
    before = state(run)
    give_gradients(run, math.inf)

    assert optimizer_step(run, 1e-3, FINITE, 0) is None
    assert run.state.scaler.get_scale() == 512.0
    assert differences(state(run), before) == []
