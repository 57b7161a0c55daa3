"""The learning rate as a pure function of the step, so that nothing about it has to be saved or rebuilt."""

from __future__ import annotations

import math
from itertools import pairwise

from camoxpert_cli.config.schema import Scheduler

_ONECYCLE_START = 1 / 25
_ONECYCLE_RISE = 0.1


def learning_rate(
    step: int,
    total_steps: int,
    *,
    scheduler: Scheduler,
    peak: float,
    minimum: float,
    warmup_steps: int = 0,
    t_mult: int = 2,
) -> float:
    """Return the learning rate of optimizer step `step` (from 0) of a stage with `total_steps`.

    After a linear warmup to `peak`:
    cosine decays to `minimum` (Loshchilov and Hutter 2017, equation 5, one cycle);
    cosine_restart does so in three cycles, each `t_mult` times longer than the previous one;
    onecycle (Smith and Topin 2018) rises by cosine from peak / 25 and decays by cosine to `minimum`; it rises over
    the warmup if there is one, otherwise over the first tenth; momentum is constant;
    none stays at `peak`.
    """
    if scheduler == "onecycle":
        rise = warmup_steps or max(1, round(_ONECYCLE_RISE * total_steps))
        if step < rise:
            return _cosine(peak * _ONECYCLE_START, peak, step / rise)
        return _cosine(peak, minimum, (step - rise) / max(1, total_steps - rise))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    step, total_steps = step - warmup_steps, total_steps - warmup_steps
    if scheduler == "none":
        return peak
    if scheduler == "cosine_restart":
        step, total_steps = _within_cycle(step, total_steps, t_mult)
    elif scheduler != "cosine":
        raise ValueError(f"unknown scheduler {scheduler!r}")
    return _cosine(peak, minimum, step / max(1, total_steps))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _within_cycle(step: int, total_steps: int, t_mult: int) -> tuple[int, int]:
    """Return the step within its cycle and the cycle's length, for three cycles that fill `total_steps`."""
    first = max(1, round(total_steps / (1 + t_mult + t_mult**2)))
    bounds = [0, first, first * (1 + t_mult), total_steps]
    for start, end in pairwise(bounds):
        if step < end:
            return step - start, end - start
    return step - bounds[-2], max(1, total_steps - bounds[-2])
