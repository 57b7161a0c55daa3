"""What the loop of `engine.train` makes of gradients: one step from several batches, averages, steps left out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.optimizer import parameters_of
from camoxpert_cli.engine.run import Run, prepare
from camoxpert_cli.engine.step import LossValues
from camoxpert_cli.engine.train import carry_out, train_epoch
from camoxpert_cli.engine.training_steps import MOST_SKIPPED_STEPS, training_steps
from camoxpert_cli.errors import TrainingError
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.compare import differences
from tests.helpers.reference_network import ReferenceOutput, reference_loss
from tests.helpers.run_files import events
from tests.helpers.steered_runs import Disk, last_layer, make_idle, run_in_hand, update
from tests.helpers.tiny_data import tiny_plan

FINITE = LossValues(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


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


def trained(run: Run) -> list[torch.nn.Parameter]:
    assert run.state.optimizer is not None
    return parameters_of(run.state.optimizer)


def give_gradients(run: Run, value: float) -> None:
    """Fill the gradients of all that is trained, as a backward pass would, scaled."""
    scaled = run.state.scaler.scale(torch.tensor(value)).item()
    for parameter in trained(run):
        parameter.grad = torch.full_like(parameter, scaled)


def loss_alone(run: Run, image: Tensor, mask: Tensor) -> Tensor:
    """The loss of one image by the reference's formulas, as if there were no other image."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in run.state.network.normalization)
    output = run.state.network((image[None].double() / 255 - mean) / std)
    chosen, gates = [each.chosen for each in output.routing], [each.gate_logits for each in output.routing]
    reference = ReferenceOutput(output.logits, list(output.deep_logits), chosen, gates)
    return reference_loss(reference, mask[None].double())["total"]


@pytest.mark.usefixtures("double_precision")
def test_a_step_is_the_plain_mean_over_its_images(tiny_data: Path, tmp_path: Path) -> None:
    """Each image of an accumulated step weighs the same in loss and gradient: in whole groups of batches, in a last
    group that is smaller, and in a batch of it that is smaller still.

    The mean is taken here, of losses and gradients of one image at a time, for the very images that the loop gave the
    network. BatchNorm and the balance term look at a whole batch, so they are held still: statistics in eval mode, and
    a single expert, for which the balance term is constant. There is no clipping, which would hide a constant factor.
    """
    # 7 images: groups of 2 + 2 and of 2 + 1.
    settings = {"batch_size": 2, "accumulation_steps": 2, "val_fraction": 0.36, "num_experts": 1, "use_ema": False}
    run = run_in_hand(tiny_data, tmp_path / "run", **settings)
    run.clip_norm = math.inf
    run.strategy.step.double().eval()
    batches: list[tuple[Tensor, Tensor]] = []
    means: list[float] = []
    run.strategy.step.register_forward_pre_hook(lambda step, inputs: batches.append(inputs))

    def compare(optimizer: Optimizer, *_: Any) -> None:
        images, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
        batches.clear()
        with torch.enable_grad():
            mean = torch.stack([loss_alone(run, *pair) for pair in zip(images, masks, strict=True)]).mean()
            expected = torch.autograd.grad(mean, trained(run))
        means.append(mean.item())
        for parameter, gradient in zip(trained(run), expected, strict=True):
            assert parameter.grad is not None
            # Measured 2e-15 of the norm; a last group divided by a whole group's size would be off by a quarter.
            assert (parameter.grad - gradient).norm() <= 1e-9 * gradient.norm() + 1e-12

    assert run.state.optimizer is not None
    run.state.optimizer.register_step_pre_hook(compare)
    loader, sizes = run.feed.training(run.phases[0].stage, 0, 0)
    steps = list(training_steps(run, run.phases[0].stage, 0, zip(sizes, loader, strict=True)))

    assert [step.images for step in steps] == [4, 3]
    assert [step.losses.total for step in steps] == pytest.approx(means, rel=1e-9)


def test_ema_is_updated_at_every_step(tiny_data: Path, tmp_path: Path) -> None:
    """The average takes in the network right after each step, that of the last partial group too; buffers included."""
    seen: list[dict[str, Tensor]] = []

    class Watched(Ema):
        def update(self, network: CamoXpert) -> None:
            seen.append({name: value.clone() for name, value in network.state_dict().items()})
            super().update(network)

    # 8 images: a group of 3 + 3, and one of 2.
    run = run_in_hand(tiny_data, tmp_path / "run", batch_size=3, accumulation_steps=2)
    run.state.ema = Watched(run.state.network, run.config.train.ema_decay)
    expected = {name: value.double() for name, value in weights(run).items()}
    train_epoch(run, run.phases[0], 0)
    for updates, values in enumerate(seen, start=1):
        decay = (1 + updates) / (10 + updates)
        expected = {name: decay * expected[name] + (1 - decay) * value.double() for name, value in values.items()}

    assert len(seen) == run.state.ema.updates == 2
    assert differences(seen[0], seen[1]) != []
    assert differences(seen[-1], weights(run)) == []
    for name, value in run.state.ema.network.state_dict().items():
        if value.is_floating_point():
            # Rounding of two updates, relative to the largest value: measured 1e-7.
            assert (value - expected[name]).abs().max() <= 1e-6 * expected[name].abs().max(), name
        else:
            assert torch.equal(value, seen[-1][name])


def test_step_whose_loss_is_not_finite_changes_nothing(tiny_data: Path, tmp_path: Path) -> None:
    """It ends the run before weights, EMA or optimizer change. Where nothing was saved yet, no file is named."""
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1)
    give_gradients(run, 1.0)
    update(run, 1e-3, FINITE, 0)
    before = state(run)
    for value in (math.nan, math.inf):
        give_gradients(run, 1.0)
        with pytest.raises(TrainingError, match=f"the loss became {value} in epoch 1 .* no weights had been saved"):
            update(run, 1e-3, FINITE._replace(total=value), 0)

    assert differences(before, state(run)) == []


def test_loss_that_is_not_finite(tiny_data: Path, tmp_path: Path) -> None:
    """A single image's ends the run with exit code 6; what was saved before stays, and is named."""
    plan = tiny_plan(tiny_data, tmp_path / "run")
    run, _ = prepare(plan)
    step = make_idle(run)

    def poison(module: object, inputs: object, output: Any) -> None:
        if step.batches == 4:  # the second of epoch 2
            output.terms[1, 2] = math.nan

    step.register_forward_hook(poison)
    with pytest.raises(TrainingError, match="the loss became nan in epoch 2 after 6 images") as caught:
        carry_out(run, plan, None)

    assert caught.value.exit_code == 6
    assert str(run.folder.last) in caught.value.message
    assert read_checkpoint(run.folder.last)["epoch"] == 1
    assert not run.folder.results.exists()


def test_step_that_overflows_changes_nothing(tiny_data: Path, tmp_path: Path) -> None:
    """With gradients that are not finite neither weights nor moments nor the average change, and none is left over."""
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1)
    give_gradients(run, 1.0)
    assert update(run, 1e-3, FINITE, 0) is not None
    before = state(run)
    for value in (math.inf, math.nan):
        give_gradients(run, value)
        assert update(run, 1e-3, FINITE, 0) is None

    assert differences(state(run), before) == []
    assert all(parameter.grad is None for parameter in run.state.network.parameters())
    give_gradients(run, 1.0)
    assert update(run, 1e-3, FINITE, 0) is not None
    assert differences(state(run), before) != []


def test_only_many_skipped_steps_in_a_row_end_a_run(tiny_data: Path, tmp_path: Path) -> None:
    """Fifty skipped steps are tolerated, again after a good one; the fifty-first in a row ends the run, exit code 6."""
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1, use_ema=False)
    one = trained(run)[0]
    for value in [math.inf] * MOST_SKIPPED_STEPS + [1.0] + [math.nan] * MOST_SKIPPED_STEPS:
        one.grad = torch.full_like(one, value)
        update(run, 1e-3, FINITE, 4)
    one.grad = torch.full_like(one, math.inf)
    with pytest.raises(TrainingError, match=r"gradients overflowed in 51 steps in a row in epoch 5") as caught:
        update(run, 1e-3, FINITE, 4)

    assert MOST_SKIPPED_STEPS == 50
    assert caught.value.exit_code == 6


def test_run_outlives_skipped_steps(tiny_data: Path, tmp_path: Path) -> None:
    """After a step that overflows the run goes on; metrics.jsonl has no gradient norm for it, and counts it."""
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1)
    _, bias = last_layer(run.state.network)

    def spoil_first(gradient: Tensor) -> Tensor:
        return gradient * (math.inf if run.state.progress.samples == 0 else 1.0)

    bias.register_hook(spoil_first)  # type: ignore[no-untyped-call]
    before = bias.detach().clone()
    train_epoch(run, run.phases[0], 0)

    assert [line["gradient_norm"] is None for line in events(run.folder, "step")] == [True, False]
    assert run.state.progress.skipped_steps == 1
    assert not torch.equal(bias, before)
    assert all(parameter.isfinite().all() for parameter in run.state.network.parameters())


def test_gradients_are_clipped(tiny_data: Path, tmp_path: Path) -> None:
    """Before a step the gradient's norm over all groups is brought down to one; what is told is the norm before."""
    run = run_in_hand(tiny_data, tmp_path / "run", skip_stage1=True, num_experts=1, use_ema=False)
    norms: list[float] = []
    assert run.state.optimizer is not None
    run.state.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            torch.nn.utils.get_total_norm([each.grad for each in trained(run) if each.grad is not None]).item()
        )
    )
    give_gradients(run, 10.0)
    told = update(run, 1e-3, FINITE, 0)

    assert told == pytest.approx(10 * math.sqrt(sum(parameter.numel() for parameter in trained(run))), rel=1e-3)
    assert norms == pytest.approx([1.0], rel=1e-3)


def test_scaled_run(tiny_data: Path, tmp_path: Path) -> None:
    """An epoch whose loss is scaled by a power of two, as in float16, ends with the very weights of one without."""
    ends: list[dict[str, Any]] = []
    for name in ("plain", "scaled"):
        run = run_in_hand(tiny_data, tmp_path / name, num_experts=1)
        if name == "scaled":
            run.state.scaler = GradScaler("cpu", init_scale=2.0**12)
        train_epoch(run, run.phases[0], 0)
        ends.append(state(run))
    disk = run.saver.write = Disk()
    run.saver.save_last()
    (_, saved) = disk.written[0]

    assert differences(ends[0], ends[1]) == []
    assert saved.training is not None
    assert saved.training.scaler["scale"] == 2.0**12


def test_overflow_lowers_the_scale(tiny_data: Path, tmp_path: Path) -> None:
    """A step that overflows under scaling is left out and halves the scale."""
    run = run_in_hand(tiny_data, tmp_path / "run", num_experts=1)
    run.state.scaler = GradScaler("cpu", init_scale=1024.0)
    before = state(run)
    give_gradients(run, math.inf)

    assert update(run, 1e-3, FINITE, 0) is None
    assert run.state.scaler.get_scale() == 512.0
    assert differences(state(run), before) == []
