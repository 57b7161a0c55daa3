"""The optimizer steps of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from camoxpert_cli import console
from camoxpert_cli.config.schema import SETTINGS
from camoxpert_cli.engine.epochs import epoch_images, rate_at
from camoxpert_cli.engine.expert_use import added
from camoxpert_cli.engine.optimizer import parameters_of, set_learning_rate
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.seed import seed_step
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.engine.step import LossValues, StepOutput, combine
from camoxpert_cli.errors import TrainingError

# float16 occasionally skips a step while the loss scale adapts; this many in a row mean that it cannot.
MOST_SKIPPED_STEPS = 50

SizedBatch: TypeAlias = tuple[int, tuple[Tensor, Tensor]]


class TrainedStep(NamedTuple):
    """A completed optimizer step: its `number` in the epoch, from 0, and its `images` over all ranks.

    `gradient_norm` is None if it overflowed and the weights were left unchanged.
    """

    number: int
    images: int
    losses: LossValues
    rate: float
    gradient_norm: float | None


def training_steps(run: Run, stage: Stage, epoch: int, batches: Iterable[SizedBatch]) -> Iterator[TrainedStep]:
    """Make one optimizer step per `accumulation_steps` batches of the epoch, and yield after each.

    `batches` are this rank's images and masks from the run's current position on, each with the batch's size over all
    ranks.
    """
    assert run.state.optimizer is not None
    progress = run.state.progress
    group_size = stage.batch_size * run.config.train.accumulation_steps * run.placement.count
    group_own = 0  # images of this rank
    group_losses = torch.zeros(len(LossValues._fields), dtype=torch.float64, device=run.device)
    group_chosen = torch.zeros(len(run.state.network.moe_layers), run.config.model.num_experts, device=run.device)
    group_start = progress.samples
    for size, (images, masks) in batches:
        # Their number may change between steps; see `choosing.refit_last`.
        group_images = min(group_size, epoch_images(run.config, epoch, run.data.images_per_epoch) - group_start)
        ends_step = progress.samples + size >= group_start + group_images
        with run.strategy.batch(size, ends_step):
            part, chosen = backward(run, images, masks, epoch, size, share=size / group_images)
        group_losses += part
        group_chosen += chosen
        group_own += len(images)
        progress.samples += size
        if not ends_step:
            continue

        # First: it raises the error of a rank that failed in its backward pass.
        run.strategy.reduce_gradients(parameters_of(run.state.optimizer), group_chosen, group_own, group_images)
        sums = run.world.all_reduce(torch.cat([group_losses, group_chosen.flatten().double()]))
        losses, chosen_sums, norm = read(sums, clipped_norm(run))
        progress.experts_chosen = added(progress.experts_chosen, chosen_sums, run.config.model.num_experts)
        group_losses.zero_()
        group_chosen.zero_()
        group_own = 0
        # Rounded up if a run was resumed with another batch size in the middle of an epoch.
        number = math.ceil(group_start / group_size)
        rate = rate_at(run.config, stage, run.data.images_per_epoch, epoch, number)
        made_norm = optimizer_step(run, rate, losses, norm, epoch)
        yield TrainedStep(number, group_images, losses, rate, made_norm)
        group_start = progress.samples
        if group_start >= epoch_images(run.config, epoch, run.data.images_per_epoch):
            return


def backward(run: Run, images: Tensor, masks: Tensor, epoch: int, size: int, share: float) -> tuple[Tensor, Tensor]:
    """Accumulate the gradients of this rank's part of a batch of `size` images, a `share` (0..1) of the step.

    Returns its part of the losses (6,), and the number of its images routed to each expert of each layer (L, E).
    """
    seed_step(run.config.train.seed, epoch, run.state.progress.samples, run.world.rank)
    output: StepOutput = run.strategy.forward(images, masks)
    run.world.require_all()
    losses = combine(output, run.state.network.top_k, size, run.world)
    scaled = run.state.scaler.scale(losses.total * share)  # also without images: every rank must initialize the scaler
    if scaled.requires_grad:
        torch.autograd.backward(scaled)
    return torch.stack(losses).detach() * share, output.chosen.sum(dim=0)


def clipped_norm(run: Run) -> Tensor:
    """Clip the gradients of a step, and return their norm before clipping: infinite or nan if they overflowed."""
    assert run.state.optimizer is not None
    run.state.scaler.unscale_(run.state.optimizer)
    return run.strategy.clip_gradients(parameters_of(run.state.optimizer), run.clip_norm)


def read(sums: Tensor, norm: Tensor) -> tuple[LossValues, list[float], float]:
    """Read the losses and the counts of routed images in `sums`, and the gradient norm, in one transfer.

    It is the only point of a step at which the host waits for the GPU, apart from the routing of the network.
    """
    *values, norm_value = torch.cat([sums, norm.to(sums).view(1)]).tolist()
    count = len(LossValues._fields)
    return LossValues(*values[:count]), values[count:], norm_value


def optimizer_step(run: Run, rate: float, losses: LossValues, norm: float, epoch: int) -> float | None:
    """Update the weights from the clipped gradients; return their `norm`, None if it overflowed (step skipped).

    Raises TrainingError if the loss itself is not finite, before any weight is changed.
    """
    optimizer, scaler, progress = run.state.optimizer, run.state.scaler, run.state.progress
    assert optimizer is not None
    if not math.isfinite(losses.total):
        run.saver.settle()  # all ranks are here, and the message depends on what is saved
        parts = ", ".join(f"{name} {value:.4g}" for name, value in losses._asdict().items())
        raise TrainingError(
            f"the loss became {losses.total} in epoch {epoch + 1} "
            f"after {console.counted(progress.samples, 'image')} ({parts}); "
            f"{run.last_good}",
            f"{_in_fp32(run)}; or lower the learning rate, for example {_at_half_the_rate(run)}",
        )
    progress.rate = rate
    set_learning_rate(optimizer, rate)
    if math.isfinite(norm):
        scaler.step(optimizer)
        run.skipped_in_a_row = 0
    else:
        run.skipped_in_a_row += 1
        progress.skipped_steps += 1
        if run.skipped_in_a_row > MOST_SKIPPED_STEPS:
            run.saver.settle()
            raise TrainingError(
                f"gradients overflowed in {run.skipped_in_a_row} steps in a row in epoch {epoch + 1}; {run.last_good}",
                _in_fp32(run),
            )
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if run.skipped_in_a_row == 0 and run.state.ema is not None:
        run.state.ema.update(run.state.network)
    return norm if math.isfinite(norm) else None


def _in_fp32(run: Run) -> str:
    setting = _given(run, "train.precision", "fp32")
    return f"{run.folder.resume_command} {setting}" if run.folder.last.exists() else f"start again with {setting}"


def _at_half_the_rate(run: Run) -> str:
    train = run.config.train
    if train.stage2_lr is not None and run.phase is not None and run.phase.stage.number == 2:
        return _given(run, "train.stage2_lr", f"{train.stage2_lr / 2:g}")
    return _given(run, "train.lr", f"{train.lr / 2:g}")


def _given(run: Run, key: str, value: str) -> str:
    """Return how to give a setting to the command that repeats what failed: resume has few flags."""
    return f"--set {key}={value}" if run.folder.last.exists() else f"{SETTINGS[key].flag} {value}"
