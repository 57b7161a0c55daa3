"""The moment by which a run must have ended, counted from the start of this process or of the machine's session.

Moments are those of `time.monotonic`, which all processes of a machine share and nobody sets; what is given in seconds
since 1970 is converted once.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.errors import UsageError

SESSION_START = "CAMOX_SESSION_START"

_IMPORTED = time.monotonic()
_MARGIN = 1.2
# What is left of a session is for whoever collects its files.
_SESSION_PART = 0.99


@dataclass(frozen=True)
class Deadline:
    """`end` in seconds of `time.monotonic`, infinity for none; `name` says which limit it comes from."""

    end: float = math.inf
    name: str = ""

    def left(self, now: float) -> float:
        """Seconds until the end; below zero after it."""
        return self.end - now


@dataclass
class Reserve:
    """Seconds that must be left on the clock at the end of a step, from what was measured so far.

    Until it was measured, saving takes `estimated_saving`, and each of the `validation_images` what a training
    image takes.
    """

    estimated_saving: float
    validation_images: int
    saving: float = 0.0
    validation: float = 0.0
    step: float = 0.0
    per_image: float = 0.0
    warm: bool = False

    def note_step(self, seconds: float, images: int) -> None:
        """An optimizer step over so many images took so long; the first one warms up, and does not count."""
        if self.warm:
            self.step = max(self.step, seconds)
            self.per_image = seconds / images
        self.warm = True

    def note_saving(self, seconds: float) -> None:
        """Writing `last.pth` took so long."""
        self.saving = max(self.saving, seconds)

    def note_validation(self, seconds: float) -> None:
        """Scoring all held-out images took so long."""
        self.validation = max(self.validation, seconds)

    @property
    def to_save(self) -> float:
        """For `best_model.pth` and `last.pth`, a fifth more than measured."""
        return _MARGIN * 2 * (self.saving or self.estimated_saving)

    @property
    def seconds(self) -> float:
        """For one more step, the validation, and what has to be saved then."""
        validation = self.validation or self.validation_images * self.per_image
        return _MARGIN * (self.step + validation) + self.to_save


def find_deadline(time_limit: int | None, session_limit: int | None, began: float | None = None) -> Deadline:
    """The earlier of two limits in seconds: from the start of camox, and from the start of the session.

    camox began with this process where `began` is not given.

    Of a session's limit a hundredth is left, so that its files can be collected.
    The session's start is CAMOX_SESSION_START (seconds since 1970) or that of process 1, which in a notebook service
    starts with the container. Raises UsageError where that variable is no such number.
    """
    began = process_start(os.getpid()) if began is None else began
    found = [Deadline()]
    if time_limit is not None:
        found.append(Deadline(began + time_limit, f"the time limit of {format_duration(time_limit)}"))
    if session_limit is not None:
        name = f"the session limit of {format_duration(session_limit)}"
        start = session_start()
        if time.monotonic() >= start + session_limit and SESSION_START not in os.environ:
            # On a machine of one's own process 1 is as old as the machine, which no session limit is meant for.
            up = format_duration(time.monotonic() - start)
            console.warn(f"this machine has been up for {up}: {name} is counted from the start of camox")
            start = began
        found.append(Deadline(start + _SESSION_PART * session_limit, name))
    return min(found, key=lambda deadline: deadline.end)


def session_start() -> float:
    """When the machine's session began. Raises UsageError as `find_deadline`."""
    given = os.environ.get(SESSION_START)
    if given is None:
        return process_start(1)
    try:
        start = float(given)
    except ValueError:
        start = math.nan
    now = time.time()
    if not 0 < start <= now:
        raise UsageError(
            f"{SESSION_START} is {given!r}, expected the session's start in seconds since 1970, not after now",
            f"export {SESSION_START}=$(date +%s) when the session begins, or unset it",
        )
    return time.monotonic() - (now - start)


def process_start(pid: int, proc: Path = Path("/proc")) -> float:
    """When process `pid` began; where /proc does not tell, when this one imported camox."""
    try:
        # The second field, a name in brackets, may hold spaces; field 22 counts ticks since the machine booted.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return _IMPORTED
    return time.monotonic() - age
