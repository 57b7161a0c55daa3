"""Estimates of what is left: exact where everything goes at one pace."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.engine.stages import Phase, Stage, plan_phases
from camoxpert_cli.engine.throughput import Forecast, Throughput, forecast, roughly

STAGE1 = Stage(1, 0, 3, batch_size=4, lr=1.0, warmup_epochs=0)
STAGE2 = Stage(2, 3, 9, batch_size=4, lr=1.0, warmup_epochs=0)
PHASES = plan_phases(STAGE1, STAGE2, progressive_unfreeze=True)  # 3 epochs, then 2 + 2 + 2


def ahead(epoch: int, images_left: int = 100, clock: float = math.inf) -> Forecast:
    """Of epochs of 100 images: 50 s of training, 10 s of validation; 7 s of tests at the end."""
    return forecast(
        PHASES,
        epoch,
        images_left=images_left,
        images=100,
        last_images=100,
        images_per_s=2,
        validation=10,
        tests=7,
        clock=clock,
    )


def test_pace_is_that_of_the_phase() -> None:
    """The first step of a phase does not count, equal steps give their speed, and another phase begins anew."""
    throughput = Throughput()
    throughput.note_step(PHASES[0], 100.0, 1)
    before = throughput.images_per_s(PHASES[0])
    for _ in range(50):
        throughput.note_step(PHASES[0], 0.5, 4)
    steady = throughput.images_per_s(PHASES[0])
    throughput.note_step(PHASES[1], 1.0, 4)

    assert before == 0
    assert steady == pytest.approx(8.0)
    assert throughput.images_per_s(PHASES[0]) == throughput.images_per_s(PHASES[1]) == 0


def test_pace_follows() -> None:
    """After a hundred steps at another speed the old one counts for less than a percent."""
    throughput = Throughput()
    for seconds in [1.0] * 101 + [2.0] * 100:
        throughput.note_step(PHASES[0], seconds, 4)

    assert throughput.images_per_s(PHASES[0]) == pytest.approx(2.0, rel=0.01)


def test_what_is_left() -> None:
    """Half of an epoch and its validation, the whole epochs of the stage, those of the run, and the tests."""
    middle = ahead(1, images_left=50)
    last = ahead(8)

    assert (middle.number, middle.stage, middle.run) == (1, 35 + 60, 35 + 7 * 60 + 7)
    assert (last.number, last.stage, last.run) == (2, 60, 67)


def test_a_last_epoch_with_fewer_images() -> None:
    """It takes less time, and so do its stage and the run; in it, what is left of it counts."""
    forecasts = [
        forecast(
            PHASES, epoch, images_left=left, images=100, last_images=40, images_per_s=2, validation=10, tests=7, clock=1
        )
        for epoch, left in ((1, 50), (3, 100), (8, 10))
    ]

    assert [each.stage for each in forecasts] == [35 + 60, 5 * 60 + 30, 15]
    assert [each.run for each in forecasts] == [35 + 6 * 60 + 30 + 7, 5 * 60 + 30 + 7, 22]


@pytest.mark.parametrize(("epoch", "stage", "run"), [(0, False, True), (3, True, True), (8, False, False)])
def test_later_epochs_that_train_more(epoch: int, stage: bool, run: bool) -> None:
    """Where more of the backbone trains later, what is left is more than was estimated, and that is said."""
    coming = ahead(epoch)

    assert (coming.stage_grows, coming.run_grows) == (stage, run)
    assert coming.run_left.startswith(">") == run


@given(clock=st.floats(0, 800), epoch=st.integers(0, 8), left=st.integers(1, 100))
def test_where_the_clock_stops(clock: float, epoch: int, left: int) -> None:
    """The epoch named is the one in which the clock runs out, counted up epoch by epoch."""
    coming = ahead(epoch, left, clock)
    ends, number = left / 2 + 10, epoch + 1
    while ends <= clock and number < 9:
        ends, number = ends + 60, number + 1

    assert coming.stopped_in == (None if coming.run <= clock else number)


def test_words() -> None:
    """The sentence names stage, run and clock; without a limit there is no clock, and one last stage is the run."""
    assert str(ahead(1)) == "2m for stage 1, >8m7s total"
    assert str(ahead(8)) == "1m7s"
    assert str(ahead(3, clock=90)) == ">6m7s; limit in 1m30s (stops in epoch 5)"
    assert str(ahead(8, clock=4000)) == "1m7s; limit in 1h7m (enough time)"


def test_rough_times() -> None:
    """From ten minutes on seconds are left out."""
    assert [roughly(seconds) for seconds in (0.2, 59.6, 599, 601, 3629, 36000)] == [
        *("0s", "1m", "9m59s", "10m", "1h", "10h")
    ]


def test_a_run_of_one_phase() -> None:
    """Nothing grows where nothing is unfrozen later."""
    coming = forecast(
        [Phase(STAGE1, 0, 3, 0)],
        0,
        images_left=1,
        images=1,
        last_images=1,
        images_per_s=1,
        validation=0,
        tests=0,
        clock=math.inf,
    )

    assert not coming.stage_grows
    assert not coming.run_grows
