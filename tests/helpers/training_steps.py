"""A `TrainingStep` over a small network, and what it is given."""

from __future__ import annotations

import torch
from torch import Tensor

from camoxpert_cli.engine.step import StepOutput, TrainingStep
from tests.helpers.networks import masks_for, random_images, small_network, spread_routing


def bytes_of(count: int, size: int = 64) -> tuple[Tensor, Tensor]:
    """Images and masks as the loader gives them: uint8."""
    images = random_images(count, size, size)
    return (images * 40 + 128).clamp(0, 255).byte(), masks_for(images).byte()


def step_of(num_experts: int = 5, *, deep_supervision: bool = True, dtype: torch.dtype | None = None) -> TrainingStep:
    """In eval mode, in which no image depends on another, routed to many experts."""
    network = small_network("test_resnet", num_experts)
    step = TrainingStep(network, deep_supervision, dtype).eval()
    spread_routing(network, step.normalize(bytes_of(5)[0]))
    return step


def join(parts: list[StepOutput]) -> StepOutput:
    """As outputs of several devices are joined."""
    return StepOutput(*(torch.cat(values) for values in zip(*parts, strict=True)))
