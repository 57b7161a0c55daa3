"""Images, steps and learning rates of epochs, of which the last one may have only some of the images."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.config.schema import Config, Scheduler, TrainConfig
from camoxpert_cli.engine.epochs import epoch_images, rate_at, step_images, steps_in_epoch
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.schedule import learning_rate

IMAGES = 20


def configured(**settings: Any) -> Config:
    return Config(train=TrainConfig(**{"epochs": 3, "stage1_epochs": 0, "batch_size": 4, **settings}))


def rates(config: Config, images: int = IMAGES) -> list[float]:
    """The learning rate of every step of the last stage."""
    stage = build_phases(config)[-1].stage
    return [
        rate_at(config, stage, images, epoch, step)
        for epoch in range(stage.first, stage.end)
        for step in range(steps_in_epoch(config, stage, epoch, images))
    ]


@pytest.mark.parametrize(("last", "counts"), [(None, [20, 20, 20]), (7, [20, 20, 7]), (20, [20] * 3), (99, [20] * 3)])
def test_images_of_an_epoch(last: int | None, counts: list[int]) -> None:
    """Only the last epoch may be shorter, and none has more images than there are."""
    config = configured(last_epoch_images=last)

    assert [epoch_images(config, epoch, IMAGES) for epoch in range(3)] == counts


@pytest.mark.parametrize("scheduler", get_args(Scheduler))
@pytest.mark.parametrize("last", [None, 1, 6, 8, 19])
def test_schedule_ends_with_the_last_step(scheduler: Scheduler, last: int | None) -> None:
    """The rates are those of a stage with as many steps as there really are; the warmup is still counted in epochs."""
    config = configured(last_epoch_images=last, scheduler=scheduler, stage2_batch_size=4, warmup_epochs=1)
    steps = 10 + math.ceil((last or IMAGES) / 4)
    expected = [
        learning_rate(step, steps, scheduler=scheduler, peak=6.5e-4, minimum=1e-6, warmup_steps=5)
        for step in range(steps)
    ]

    assert rates(config) == expected


@given(images=st.integers(1, 60), last=st.integers(1, 80), batch=st.integers(1, 16))
def test_steps_and_images_agree(images: int, last: int, batch: int) -> None:
    """The steps of an epoch have room for its images, and would not without the last one."""
    config = configured(last_epoch_images=last, stage2_batch_size=batch)
    stage = build_phases(config)[-1].stage
    for epoch in range(3):
        steps, count = steps_in_epoch(config, stage, epoch, images), epoch_images(config, epoch, images)

        assert (steps - 1) * step_images(config, stage) < count <= steps * step_images(config, stage)


def test_a_last_epoch_in_the_first_stage() -> None:
    """A stage that ends earlier has whole epochs, whatever the last one has."""
    config = configured(epochs=4, stage1_epochs=2, last_epoch_images=4)
    stage = build_phases(config)[0].stage

    assert [rate_at(config, stage, IMAGES, 1, step) for step in range(5)] == [
        learning_rate(5 + step, 10, scheduler="cosine", peak=6.5e-4, minimum=1e-6) for step in range(5)
    ]
