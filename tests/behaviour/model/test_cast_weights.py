"""Weights are converted for autocast all at once, in the whole network."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.engine.step import TrainingStep
from tests.helpers.conversions import Conversions
from tests.helpers.networks import masks_for, random_images, small_network, without_dropout
from tests.helpers.replicas import Replicas
from tests.helpers.whole_batch import combine

DTYPE = torch.bfloat16


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in module.parameters()]


def step_in_half_precision(*, gradient_checkpointing: bool = False) -> TrainingStep:
    network = small_network("test_resnet", 7, gradient_checkpointing=gradient_checkpointing).train()
    without_dropout(network)
    return TrainingStep(network, deep_supervision=True, autocast_dtype=DTYPE)


def backward(step: nn.Module, network: Any) -> None:
    images = random_images(4)
    output = step((images * 40 + 128).clamp(0, 255).byte(), masks_for(images).byte())
    torch.autograd.backward(combine(output, network.top_k).total)


def test_network_converts_no_weight_by_itself() -> None:
    """In a whole training step."""
    step = step_in_half_precision()
    weights = [weight for weight in step.parameters() if weight.ndim > 1]
    with Conversions(weights) as conversions:
        backward(step, step.network)

    assert conversions.single == 0
    assert conversions.together > len(weights)


def test_activation_checkpointing() -> None:
    """The recomputation converts the weights again, and gradients are those without it."""
    found = []
    for gradient_checkpointing in (False, True):
        step = step_in_half_precision(gradient_checkpointing=gradient_checkpointing)
        backward(step, step.network)
        found.append(gradients(step))

    for one, two in zip(*found, strict=True):
        assert (one is None) == (two is None)
        assert one is None or two is None or torch.equal(one, two)


def test_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of DataParallel's replicas, which are no parameters, are converted too, and their threads apart."""
    step = step_in_half_precision()
    alone = deepcopy(step)
    backward(Replicas(step, 1, monkeypatch), step.network)
    backward(alone, alone.network)
    used = [gradient for gradient in gradients(alone) if gradient is not None and gradient.any()]
    replicated = [gradient for gradient in gradients(step) if gradient is not None and gradient.any()]

    assert len(used) == len(replicated) > 0
    assert all(torch.equal(one, two) for one, two in zip(used, replicated, strict=True))
    with Conversions([weight for weight in step.parameters() if weight.ndim > 1]) as conversions:
        backward(Replicas(step, 1, monkeypatch), step.network)
    assert conversions.single == 0
