"""Decide whether compiling the steps of a phase pays: pure functions of what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Steps that are measured, after a few that do not count because kernels are chosen and memory is allocated.
_WARM_UP, _COUNTED = 3, 10
# Compiling must be expected to save this many times the seconds it takes: both are estimates.
_PAYBACK = 2.0
# Compiled steps that save less are not worth other rounding, and may be a fluctuation.
_LEAST_SAVING = 0.03


@dataclass(frozen=True)
class Experience:
    """What compiling costs and gains: `seconds` per phase, and the `saving`, the share (0..1) of a step's time."""

    seconds: float
    saving: float

    @property
    def pays_from(self) -> float:
        """Return the seconds of training from which compiling pays; infinity if it saves too little."""
        return _PAYBACK * self.seconds / self.saving if self.is_faster else math.inf

    @property
    def is_faster(self) -> bool:
        """Whether compiled steps save enough to be used."""
        return self.saving >= _LEAST_SAVING

    def fits(self, left: float) -> bool:
        """Return whether compiling ends within `left` seconds, even if it takes much longer than expected."""
        return left >= _PAYBACK * self.seconds


# Assumed until a session has compiled a phase. Together: compile if 30 minutes of training are left in the phase.
ASSUMED = Experience(seconds=180.0, saving=0.2)


def is_measured(seconds: Sequence[float]) -> bool:
    """Return whether these are enough steps to be judged."""
    return len(seconds) >= _WARM_UP + _COUNTED


def step_time(seconds: Sequence[float]) -> float:
    """Return the typical time of a step: the median, without warmup, because some steps wait for images or a disk."""
    return statistics.median(seconds[_WARM_UP:])


def share_saved(eager: float, compiled: float) -> float:
    """Return the share (at most 1) of a step's time that compiling saves; negative if it became slower."""
    return 1 - compiled / eager
