"""Throughput of a run and the remaining time estimated from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.engine.stages import Kind, Phase

# Decay of earlier steps per step: about twenty steps count.
_KEPT = 0.95


@dataclass
class Throughput:
    """Recent training throughput; the first step of a phase is a warmup and does not count."""

    _seconds: float = 0.0
    _images: float = 0.0
    _kind: Kind | None = None

    def note_step(self, phase: Phase, seconds: float, images: int) -> None:
        """Record an optimizer step over `images` images of all ranks. A new phase starts from zero."""
        if self._kind != phase.kind:
            self._kind, self._seconds, self._images = phase.kind, 0.0, 0.0
            return
        self._seconds = _KEPT * self._seconds + seconds
        self._images = _KEPT * self._images + images

    def images_per_s(self, phase: Phase) -> float:
        """Return the training images per second; 0 if no step of the phase has counted yet."""
        return self._images / self._seconds if self._kind == phase.kind and self._seconds > 0 else 0.0


@dataclass(frozen=True)
class Forecast:
    """Remaining seconds of a stage and of the run, including the test sets; `clock` is the time until the limit.

    `stage_grows` and `run_grows` say that later epochs train more layers than those timed, so that it will take longer.
    `number` is that of the stage. `stopped_in` is the epoch (from 1) in which the time limit will stop the run.
    """

    number: int
    is_last_stage: bool
    stage: float
    run: float
    stage_grows: bool
    run_grows: bool
    clock: float
    stopped_in: int | None

    @property
    def run_left(self) -> str:
        return f"{'>' if self.run_grows else ''}{roughly(self.run)}"

    def __str__(self) -> str:
        stage = f"{'>' if self.stage_grows else ''}{roughly(self.stage)}"
        text = self.run_left if self.is_last_stage else f"{stage} for stage {self.number}, {self.run_left} total"
        if self.clock == math.inf:
            return text
        verdict = "enough time" if self.stopped_in is None else f"stops in epoch {self.stopped_in}"
        return f"{text}; limit in {roughly(max(0.0, self.clock))} ({verdict})"


def forecast(
    phases: Sequence[Phase],
    epoch: int,
    *,
    images_left: int,
    images: int,
    last_images: int,
    images_per_s: float,
    validation: float,
    tests: float,
    clock: float,
) -> Forecast:
    """Estimate the remaining time of a run in `epoch` (from 0) with `images_left` images to go in it.

    An epoch has `images` images, the last one `last_images`; `validation`, with the pause to save after it, and
    `tests`, with the wait for the last save, take that many seconds. `clock` is the number of seconds that may be used,
    infinity without a limit.
    """
    phase = next(phase for phase in phases if phase.end > epoch)
    whole = images / images_per_s + validation
    rest = images_left / images_per_s + validation
    later = [each for each in phases if each.first > epoch]
    training = rest + (phases[-1].end - epoch - 1) * whole
    if epoch + 1 < phases[-1].end:
        training -= (images - last_images) / images_per_s
    run = training + tests
    stopped_in = None
    if run > clock:
        stopped_in = min(epoch + 1 if clock < rest else epoch + 2 + int((clock - rest) / whole), phases[-1].end)
    return Forecast(
        number=phase.stage.number,
        is_last_stage=phase.stage == phases[-1].stage,
        stage=training if phase.stage == phases[-1].stage else rest + (phase.stage.end - epoch - 1) * whole,
        run=run,
        stage_grows=any(each.stage == phase.stage for each in later),
        run_grows=bool(later),
        clock=clock,
        stopped_in=stopped_in,
    )


def roughly(seconds: float) -> str:
    """Format a duration to about two digits: to the minute from ten minutes on."""
    return format_duration(seconds if seconds < 600 else 60 * round(seconds / 60))
