"""The choice of the number of epochs: it fits, and one more step would not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.config.schema import Config, TrainConfig
from camoxpert_cli.engine.epochs import epoch_images, step_images
from camoxpert_cli.engine.fit import (
    Budget,
    Pace,
    Position,
    longest,
    seconds_left,
    shortest,
    with_epochs,
    with_part,
    without_skipped,
)
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.stages import keep_unfrozen

START = Position()
PACE = Pace({(1, 0): 0.1, (2, 1): 0.2, (2, 2): 0.3, (2, 4): 0.4}, between=5.0, closing=30.0)


def recipe(epochs: int = 10, stage1_epochs: int = 2, warmup_epochs: int = 1, **others: Any) -> Config:
    train = {"batch_size": 4, "stage2_batch_size": 3, "progressive_unfreeze": False, **others}
    return Config(train=TrainConfig(epochs=epochs, stage1_epochs=stage1_epochs, warmup_epochs=warmup_epochs, **train))


def numbers(config: Config) -> tuple[int, int, int, int | None]:
    train = config.train
    return train.epochs, train.stage1_epochs, train.warmup_epochs, train.last_epoch_images


def seconds_step_by_step(config: Config, images: int, pace: Pace, at: Position) -> float:
    """What is left of a run, added up image by image."""
    phases = keep_unfrozen(build_phases(config), at.epoch, at.backbone_stages)
    seconds = pace.closing
    for epoch in range(at.epoch, config.train.epochs):
        phase = next(each for each in phases if each.first <= epoch < each.end)
        count = epoch_images(config, epoch, images) - (at.samples if epoch == at.epoch else 0)
        seconds += count * pace.per_image[phase.kind] + pace.between
    return seconds


@st.composite
def recipes(draw: st.DrawFn) -> Config:
    epochs = draw(st.integers(1, 40))
    stage1 = draw(st.integers(0, epochs))
    return recipe(
        epochs,
        stage1,
        draw(st.integers(0, epochs - stage1)),
        batch_size=draw(st.integers(1, 8)),
        stage2_batch_size=draw(st.integers(1, 8)),
        progressive_unfreeze=draw(st.booleans()),
    )


times = st.floats(0.001, 10.0)
paces = st.builds(
    lambda first, growth, between, closing: Pace(
        {(1, 0): first, (2, 1): first + growth[0], (2, 2): first + sum(growth[:2]), (2, 4): first + sum(growth)},
        between,
        closing,
    ),
    times,
    st.tuples(*[st.floats(0, 1.0)] * 3),
    st.floats(0.01, 100.0),
    st.floats(0, 100.0),
)


def with_last(config: Config, images: int) -> Config:
    return replace(config, train=replace(config.train, last_epoch_images=images))


def step_at_end(config: Config) -> int:
    return step_images(config, build_phases(config)[-1].stage)


@settings(max_examples=25)
@given(recipes(), st.integers(1, 40), paces, st.floats(0, 500))
def test_it_fits_and_more_would_not(chosen_from: Config, images: int, pace: Pace, budget: float) -> None:
    """The run ends in time, and one that is longer by an optimizer step would not, in a further epoch if need be."""
    chosen = longest(chosen_from, chosen_from, images, pace, budget, START)
    train, step = chosen.train, step_at_end(chosen)
    if train.last_epoch_images is not None:
        more = with_last(chosen, train.last_epoch_images + step)
    else:
        more = with_epochs(chosen_from, chosen_from, train.epochs + 1, START)
        more = with_last(more, step_at_end(more))

    assert seconds_left(more, images, pace, START) > budget - 1e-5
    assert train.last_epoch_images is None or (train.last_epoch_images % step == 0 and train.last_epoch_images < images)
    if train.epochs > 2 or (train.last_epoch_images or images) > step:  # otherwise it is as short as can be
        assert seconds_left(chosen, images, pace, START) <= budget + 1e-5


def keeps_what_has_been(chosen_from: Config, current: Config, later: Config, at: Position) -> bool:
    """Whether a run at a position can continue with these numbers of epochs."""
    old, new = current.train, later.train
    if chosen_from.train.stage1_epochs == chosen_from.train.epochs:
        return new.stage1_epochs == new.epochs > at.epoch
    if at.epoch < old.stage1_epochs:
        return at.epoch < new.stage1_epochs < new.epochs - new.warmup_epochs
    begun = (at.epoch, at.samples) > (old.stage1_epochs, 0)
    return (
        new.stage1_epochs == old.stage1_epochs
        and (not begun or new.warmup_epochs == old.warmup_epochs)
        and max(at.epoch, new.stage1_epochs + new.warmup_epochs) < new.epochs
    )


@settings(max_examples=25)
@given(recipes(), st.integers(1, 40), paces, st.floats(0, 500), st.data())
def test_from_the_middle_of_a_run(
    chosen_from: Config, images: int, pace: Pace, budget: float, data: st.DataObject
) -> None:
    """What has been stays, and of all runs that could follow it, the longest that fits is found."""
    current = with_epochs(chosen_from, chosen_from, data.draw(st.integers(2, 30)), START)
    epoch = data.draw(st.integers(0, current.train.epochs - 1))
    phase = next(each for each in build_phases(current) if each.first <= epoch < each.end)
    at = Position(epoch, data.draw(st.integers(0, images - 1)), phase.backbone_stages)
    chosen = longest(chosen_from, current, images, pace, budget, at)
    possible = [
        each
        for epochs in range(epoch + 1, chosen.train.epochs + 3)
        if keeps_what_has_been(chosen_from, current, each := with_epochs(chosen_from, current, epochs, at), at)
    ]
    fitting = [each.train.epochs for each in possible if seconds_left(each, images, pace, at) <= budget]
    partial = chosen.train.last_epoch_images is not None

    assert keeps_what_has_been(chosen_from, current, chosen, at)
    if fitting:
        assert chosen.train.epochs == max(fitting) + partial
    else:
        assert chosen.train.epochs == possible[0].train.epochs
    if chosen.train.epochs == epoch + 1:
        assert (chosen.train.last_epoch_images or images) >= at.samples


@settings(max_examples=25)
@given(recipes(), st.integers(1, 40), paces, st.data())
def test_seconds_are_those_of_each_epoch(chosen_from: Config, images: int, pace: Pace, data: st.DataObject) -> None:
    """What is left is the sum over epochs and images, from any position of a run."""
    config = with_last(chosen_from, data.draw(st.integers(1, 50)))
    epoch = data.draw(st.integers(0, config.train.epochs - 1))
    samples = data.draw(st.integers(0, epoch_images(config, epoch, images)))
    at = Position(
        epoch, samples, data.draw(st.sampled_from([0, 1, 2, 4])) if epoch >= config.train.stage1_epochs else 0
    )

    assert seconds_left(config, images, pace, at) == pytest.approx(seconds_step_by_step(config, images, pace, at))


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        # An epoch of stage 1 takes 20 s, one of stage 2 50 s.
        (30 + 20 + 50, (2, 1, 0, None)),
        (30 + 20 + 49, (2, 1, 0, 144)),
        (30 + 20 + 50 + 5, (2, 1, 0, None)),
        (30 + 20 + 50 + 7, (3, 1, 0, 6)),
        (30 + 2 * 20 + 8 * 50, (10, 2, 1, None)),
        (30 + 20 * 20 + 80 * 50, (100, 20, 10, None)),
        (0, (2, 1, 0, 3)),
    ],
)
def test_proportions(budget: float, expected: tuple[int, int, int, int | None]) -> None:
    """A fifth of the epochs is for stage 1, an eighth of the others for the warmup; each stage has at least one."""
    pace = replace(PACE, per_image={(1, 0): 0.1, (2, 4): 0.3})

    assert numbers(longest(recipe(), recipe(), 150, pace, budget, START)) == expected


@pytest.mark.parametrize(
    ("chosen_from", "expected"),
    [
        (recipe(10, 0, 1), (4, 0, 0, None)),
        (recipe(10, 10, 0), (4, 4, 0, None)),
        (recipe(10, 9, 0), (4, 3, 0, None)),
        (recipe(10, 1, 9), (4, 1, 2, None)),
        (recipe(10, 0, 3), (4, 0, 1, None)),
    ],
)
def test_recipes_without_one_of_the_stages(chosen_from: Config, expected: tuple[int, int, int, int | None]) -> None:
    """A stage that the recipe lacks stays away, one that it has is kept, and the warmup ends before its stage."""
    assert numbers(with_epochs(chosen_from, chosen_from, 4, START)) == expected


def test_a_skipped_stage_takes_no_time() -> None:
    """A recipe that skips stage 1 is fitted by the epochs of stage 2, the only ones."""
    skipping = without_skipped(recipe(10, 4, 2, skip_stage1=True))

    assert numbers(skipping) == (6, 0, 2, None)
    assert seconds_left(skipping, 10, PACE, START) == pytest.approx(30 + 6 * (10 * 0.4 + 5))
    assert without_skipped(recipe()) == recipe()


@pytest.mark.parametrize(
    ("chosen_from", "expected"),
    [(recipe(), (2, 1, 0, 5)), (recipe(8, 0), (1, 0, 0, 5)), (recipe(8, 8, 0), (1, 1, 0, 5))],
)
def test_shortest(chosen_from: Config, expected: tuple[int, int, int, int | None]) -> None:
    """An epoch of each stage that the recipe has, and half of the images in the last one."""
    assert numbers(shortest(chosen_from, 10)) == expected


@pytest.mark.parametrize(("budget", "images"), [(0.0, 6), (45.0, 15), (60.0, None)])
def test_the_last_epoch_keeps_its_steps(budget: float, images: int | None) -> None:
    """In the middle of the last epoch, after 5 of 20 images, it may still have more images or fewer, but not 3."""
    config = with_epochs(recipe(), recipe(), 4, START)
    at = Position(3, 5, 4)
    pace = replace(PACE, per_image={(1, 0): 1.0, (2, 4): 1.0})

    assert with_part(config, 20, pace, budget, at).train.last_epoch_images == images


def test_pace_follows() -> None:
    """What was measured counts by its weight, and what was not is faster or slower in the same proportion."""
    followed = PACE.following((2, 1), 0.4, 7.0, weight=0.5)

    assert followed.per_image == pytest.approx({(1, 0): 0.15, (2, 1): 0.3, (2, 2): 0.45, (2, 4): 0.6})
    assert (followed.between, followed.closing) == (6.0, 30.0)
    assert PACE.following((2, 1), 0.4, 7.0, weight=1.0).per_image[(2, 1)] == pytest.approx(0.4)


def test_one_session() -> None:
    """A hundredth of the session, a quarter of the end and a second remain unused; the reserve is not needed."""
    budget = Budget(1, session=1000.0, end=1500.0, startup=50.0)

    assert budget.left(600.0, PACE, unused=20.0) == pytest.approx(900 - 10 - 7.5 - 1)


def test_several_sessions() -> None:
    """Each later one loses its startup, each but the last what it leaves unused."""
    budget = Budget(3, session=1000.0, end=1500.0, startup=50.0)

    assert budget.left(600.0, PACE, unused=20.0) == pytest.approx(900 + 2 * (1000 - 50 - 20) - 30 - 7.5 - 1)


@given(st.integers(1, 4), st.floats(10, 1e4), st.floats(0, 100), st.floats(0, 50))
def test_a_session_that_is_just_long_enough(sessions: int, rest: float, spent: float, unused: float) -> None:
    """Of sessions as long as they are said to have to be, exactly the time that is needed can be used."""
    length = Budget(sessions, 1.0, 1.0, startup=30.0).needed(spent, rest, PACE, unused)
    budget = Budget(sessions, length, end=length, startup=30.0)

    assert budget.left(spent, PACE, unused) == pytest.approx(rest)
