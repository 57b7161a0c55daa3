"""The steps whose memory is measured. The CPU does not count its own: there they only have to run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.optimizer import build_optimizer
from camoxpert_cli.engine.step import StepOutput, TrainingStep
from camoxpert_cli.launch import memory_probe
from camoxpert_cli.launch.memory_probe import measure_memory


def small(**settings: object) -> Config:
    flags = {
        "model.backbone": "test_resnet",
        "model.num_experts": 7,
        "data.img_size": 64,
        "train.batch_size": 3,
        "train.stage2_batch_size": 2,
        **{f"train.{name}": value for name, value in settings.items()},
    }
    return resolve("kaggle-2xT4", flags).config


def test_the_worst_that_a_long_run_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    """All images choose the costliest experts, and each trained parameter has a gradient and moments all the same."""
    costliest = [[0, 2, 5], [1, 3, 6], [4, 5, 6], [0, 1, 2]]
    monkeypatch.setattr(memory_probe, "costliest", lambda *arguments: costliest)
    chosen, without_gradient, without_moments = [], [], []
    optimizers: list[AdamW] = []

    def build(*arguments: Any, **settings: Any) -> AdamW:
        optimizers.append(build_optimizer(*arguments, **settings))
        return optimizers[-1]

    honest = TrainingStep.forward

    def forward(step: TrainingStep, images: Tensor, masks: Tensor) -> StepOutput:
        trained = [parameter for parameter in step.parameters() if parameter.requires_grad]
        state = optimizers[-1].state
        without_gradient.append(sum(parameter.grad is None for parameter in trained))
        without_moments.append(sum(not {"exp_avg", "exp_avg_sq"} <= set(state[parameter]) for parameter in trained))
        output = honest(step, images, masks)
        chosen.extend(output.chosen[0].tolist())
        return output

    monkeypatch.setattr(memory_probe, "build_optimizer", build)
    monkeypatch.setattr(TrainingStep, "forward", forward)
    peaks = measure_memory(small(), "cpu")

    assert [(stage.number, stage.batch_size, peak) for stage, peak in peaks.items()] == [(1, 3, 0), (2, 2, 0)]
    assert without_gradient == without_moments == [0] * 4  # two steps of two stages
    for at, counts in enumerate(chosen):
        assert {expert for expert, count in enumerate(counts) if count} == set(costliest[at % 4])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    """A GPU counts; more images take more."""
    first, second = (next(iter(measure_memory(small(batch_size=size), "cuda:0").values())) for size in (2, 64))

    assert first is not None
    assert second is not None
    assert 0 < first < second
