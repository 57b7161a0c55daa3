from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.config.schema import Scheduler
from camoxpert_cli.engine.schedule import learning_rate

PEAK, MINIMUM = 1e-3, 1e-6
SCHEDULERS: tuple[Scheduler, ...] = get_args(Scheduler)


def rates(scheduler: Scheduler, total: int, warmup: int = 0, t_mult: int = 2, minimum: float = MINIMUM) -> list[float]:
    """The rate of every step, and what it would be one step after the last."""
    return [
        learning_rate(step, total, scheduler=scheduler, peak=PEAK, minimum=minimum, warmup_steps=warmup, t_mult=t_mult)
        for step in range(total + 1)
    ]


def rises(values: list[float]) -> list[int]:
    """The steps whose rate is above that of the step before."""
    return [step for step, (before, after) in enumerate(pairwise(values), start=1) if after > before]


@settings(max_examples=60)
@given(st.sampled_from(SCHEDULERS), st.integers(1, 150), st.integers(0, 150), st.integers(1, 6))
def test_every_rate_is_usable(scheduler: Scheduler, total: int, warmup: int, t_mult: int) -> None:
    """For any length, warm-up and cycle the rate is finite, never above the peak and never zero or below."""
    warmup = min(warmup, total)
    values = rates(scheduler, total, warmup, t_mult)[:-1]

    assert all(math.isfinite(value) and 0 < value <= PEAK * (1 + 1e-12) for value in values)
    assert all(value >= MINIMUM * (1 - 1e-12) for value in values[warmup:])


def test_cosine_falls_from_peak_to_minimum() -> None:
    """It starts at the peak, is half-way down at half time, ends at the minimum, and never rises."""
    values = rates("cosine", 200)

    assert values[0] == pytest.approx(PEAK)
    assert values[100] == pytest.approx((PEAK + MINIMUM) / 2)
    assert values[200] == pytest.approx(MINIMUM)
    assert rises(values) == []


@pytest.mark.parametrize("scheduler", ["cosine", "onecycle", "cosine_restart"])
@pytest.mark.parametrize("warmup", [0, 70])
def test_minimum_is_reached(scheduler: Scheduler, warmup: int) -> None:
    """The last step of a long stage trains at the minimum, up to a thousandth of the way down."""
    values = rates(scheduler, 700, warmup)

    assert values[-1] == pytest.approx(MINIMUM)
    assert values[-2] < MINIMUM + PEAK / 1000


@pytest.mark.parametrize("scheduler", ["cosine", "cosine_restart", "none"])
def test_warm_up_is_linear(scheduler: Scheduler) -> None:
    """The rate rises in equal steps, the last of which is the peak; only then the schedule begins."""
    values = rates(scheduler, 100, warmup=10)

    assert values[:10] == pytest.approx([PEAK * part / 10 for part in range(1, 11)])
    assert values[10:] == pytest.approx(rates(scheduler, 90))


@pytest.mark.parametrize(("warmup", "rise"), [(0, 20), (50, 50)])
def test_onecycle_rises_and_falls(warmup: int, rise: int) -> None:
    """It rises from a 25th of the peak over the warm-up, or a tenth of the stage, then falls to the minimum."""
    values = rates("onecycle", 200, warmup)

    assert values[0] == pytest.approx(PEAK / 25)
    assert values[rise] == pytest.approx(PEAK)
    assert rises(values) == list(range(1, rise + 1))
    assert values[200] == pytest.approx(MINIMUM)


@pytest.mark.parametrize(("t_mult", "starts"), [(1, [0, 100, 200]), (2, [0, 43, 129]), (3, [0, 23, 92])])
def test_restarts(t_mult: int, starts: list[int]) -> None:
    """There are three cycles, each `t_mult` times longer than the one before, and each falls from peak to minimum."""
    values = rates("cosine_restart", 300, t_mult=t_mult)

    assert rises(values[:-1]) == starts[1:]
    assert [values[start] for start in starts] == pytest.approx([PEAK] * 3)
    for start, end in pairwise([*starts, 300]):
        length = end - start
        assert values[start:end] == pytest.approx(rates("cosine", length)[:-1])


@given(st.integers(1, 4), st.integers(0, 100))
def test_always_three_cycles(t_mult: int, more: int) -> None:
    """Whatever the number of steps, from one per cycle on, the peak comes three times."""
    total = 1 + t_mult + t_mult**2 + more
    values = rates("cosine_restart", total, t_mult=t_mult, minimum=0.0)[:-1]

    assert values.count(PEAK) == 3


def test_none_is_constant() -> None:
    """Without a schedule the rate is the peak, whatever the minimum."""
    assert set(rates("none", 50)) == {PEAK}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_step_alone_decides(scheduler: Scheduler) -> None:
    """The rate is a function of the step: asked backwards or twice, it is the same."""
    forwards = rates(scheduler, 30, warmup=3)
    backwards = [
        learning_rate(step, 30, scheduler=scheduler, peak=PEAK, minimum=MINIMUM, warmup_steps=3)
        for step in reversed(range(31))
    ]

    assert backwards[::-1] == forwards
