"""Runs between `prepare` and their end, with parts exchanged: what costs time, and what a test wants to steer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camoxpert_cli.checkpoints.format import CheckpointContent, CheckpointNotWritten, write_checkpoint
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.step import LossValues, StepOutput
from camoxpert_cli.engine.training_steps import clipped_norm, optimizer_step
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.tiny_data import tiny_plan


def run_in_hand(data: Path, folder: Path, **settings: Any) -> Run:
    """A run that is ready for its first step, in its first phase."""
    run = prepare(tiny_plan(data, folder, **settings))[0]
    enter_phase(run, run.phases[0])
    return run


def update(run: Run, rate: float, losses: LossValues, epoch: int) -> float | None:
    """Clip the gradients that there are, and make the optimizer step, as at the end of each step of training."""
    return optimizer_step(run, rate, losses, clipped_norm(run).item(), epoch)


def last_layer(network: CamoXpert) -> tuple[Tensor, Tensor]:
    """Weight and bias of what gives the logits."""
    layer = network.final_conv[-1]
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return layer.weight, layer.bias


class IdleStep(nn.Module):
    """Computes no network: each image has the losses `terms` and chooses the first experts; there is no gradient."""

    def __init__(self, run: Run, terms: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        super().__init__()
        network = run.state.network
        self.terms = torch.tensor(terms)
        self.batches = 0
        self._chosen = torch.zeros(1, len(network.moe_layers), network.num_experts)
        self._chosen[:, :, : network.top_k] = 1.0

    def forward(self, images: Tensor, masks: Tensor) -> StepOutput:
        self.batches += 1
        chosen = self._chosen * len(images)
        return StepOutput(self.terms.repeat(len(images), 1), chosen, chosen / chosen.sum(dim=2, keepdim=True))


def make_idle(run: Run) -> IdleStep:
    """Have the run compute nothing in its steps, from now on."""
    step = IdleStep(run)
    run.strategy.step = step
    run.strategy.wrap()
    return step


class Disk:
    """Takes the place of a run's `saver.write`: full for the writes that `is_full` says.

    It is asked of which file, and the number of this write, from 1.
    """

    def __init__(self, is_full: Callable[[str, int], bool] = lambda name, count: False, *, keeps: bool = False) -> None:
        """What is written is written where it `keeps` it; otherwise it is in `written` alone."""
        self.written: list[tuple[str, CheckpointContent]] = []
        self._is_full, self._keeps = is_full, keeps
        self._tries: dict[str, int] = {}

    def __call__(self, path: Path, content: CheckpointContent, keep_as: Path | None) -> None:
        self._tries[path.name] = self._tries.get(path.name, 0) + 1
        if self._is_full(path.name, self._tries[path.name]):
            raise CheckpointNotWritten(f"{path} cannot be written: No space left on device", "free some space")
        self.written.append((path.name, content))
        if self._keeps:
            write_checkpoint(path, content, keep_as)
