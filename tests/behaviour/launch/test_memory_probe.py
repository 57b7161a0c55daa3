"""The steps whose memory is measured. The CPU does not count its own: there they only have to run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import AdamW

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.optimizer import build_optimizer
from camoxpert_cli.engine.step import StepOutput, TrainingStep
from camoxpert_cli.launch import memory_probe
from camoxpert_cli.launch.memory_probe import largest_batches, largest_that, measure_memory
from tests.helpers.small_card import have_room


def small(**settings: object) -> Config:
    flags = {
        "model.backbone": "test_resnet",
        "model.num_experts": 2,
        "data.img_size": 64,
        "train.batch_size": 3,
        "train.stage2_batch_size": 2,
        **{f"{'model' if name == 'num_experts' else 'train'}.{name}": value for name, value in settings.items()},
    }
    return resolve("kaggle-2xT4", flags).config


def peaks(config: Config, device: str = "cpu") -> list[tuple[int, int, int | None]]:
    """Number, batch size and peak of each stage."""
    return [(stage.number, stage.batch_size, peak) for stage, peak in measure_memory(config, device).items()]


def test_each_stage_once() -> None:
    """Both stages run at their own batch, however many steps unfreeze the backbone."""
    assert peaks(small()) == [(1, 3, 0), (2, 2, 0)]
    assert peaks(small(skip_stage1=True)) == [(2, 2, 0)]


def test_whole_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 1 trains none of the backbone, and stage 2 is measured where all of it trains."""
    asked = []
    honest = memory_probe._train

    def train(*arguments: object) -> None:
        asked.append(arguments[-1])
        honest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(memory_probe, "_train", train)
    measure_memory(small(), "cpu")

    assert asked == [0, 4]


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that runs out of memory says so, and the next one is measured all the same."""
    honest = memory_probe._train

    def train(*arguments: object) -> None:
        if arguments[-1] == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        honest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(memory_probe, "_train", train)

    assert peaks(small()) == [(1, 3, None), (2, 2, 0)]


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
    measure_memory(small(num_experts=7), "cpu")

    assert without_gradient == without_moments == [0] * 4  # two steps of two stages
    for at, counts in enumerate(chosen):
        assert {expert for expert, count in enumerate(counts) if count} == set(costliest[at % 4])


@given(room=st.integers(0, 300), limit=st.integers(1, 300))
def test_the_largest(room: int, limit: int) -> None:
    """The largest that fits is found; what fits as it was asked for is tried once, and else in halves."""
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= room

    assert largest_that(fits, limit) == min(room, limit)
    assert min(tried) >= 1
    assert len(tried) <= 1 + (0 if limit <= room else limit.bit_length())


def test_largest_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each stage, up to its limit; a stage that does not train has room for all."""
    have_room(monkeypatch, most_images=2)

    assert largest_batches(small(), "cpu", (3, 1)) == [2, 1]
    assert largest_batches(small(skip_stage1=True), "cpu", (9, 3)) == [9, 2]


def test_the_costliest_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory runs out before the steps, while experts are measured, the batch has no room either."""

    def measure(network: object, images: Tensor, dtype: object) -> list[list[int]]:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [[0, 1]] * 4

    monkeypatch.setattr(memory_probe, "costliest", measure)

    assert peaks(small()) == [(1, 3, None), (2, 2, 0)]
    assert largest_batches(small(), "cpu", (3, 3)) == [2, 2]


def test_part_of_the_memory_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps must do with 92% of what is free, not of all; a card without room for the weights holds no image."""
    asked: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 20))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, device: asked.append(part))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory_probe, "_build", full)

    assert largest_batches(small(), "cuda:0", (3, 2)) == [0, 0]
    assert asked == [pytest.approx(0.46)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    """A GPU counts; more images take more."""
    first, second = (peaks(small(batch_size=size), "cuda:0")[0][2] for size in (2, 64))

    assert first is not None
    assert second is not None
    assert 0 < first < second
