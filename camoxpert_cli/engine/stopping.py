"""Ends a run early and well: Ctrl-C, other signals and the clock wait until nothing is half done."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.signals import ASKING, INSISTING, ONE_PRESS, give_back, take_over


@dataclass(frozen=True)
class Stop:
    """Why a run ends early. `exit_code` is 128 + the signal's number, or 0 for the clock."""

    reason: str
    exit_code: int


class Stopping:
    """Listens to signals while it is entered; `due` tells whether the run has to end.

    Ctrl-C, or another request that people make, takes effect at once where it comes again a second later. Whose signals
    stay as they are: see `signals.take_over`.
    """

    def __init__(self, deadline: Deadline, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives the time in seconds, that of the deadline."""
        self.deadline, self._clock = deadline, clock
        self._received: dict[signal.Signals, float] = {}  # and when each came first
        self._before: dict[signal.Signals, Any] = {}

    def due(self, reserve: float) -> Stop | None:
        """Why the run has to end: a signal, or less than `reserve` seconds left on the clock. None: it may go on."""
        for number in self._received:
            return Stop(f"stopped by {ASKING[number]}", 128 + number)
        left = self.deadline.left(self._clock())
        if left < reserve:
            return Stop(
                f"stopped by the clock: {self.deadline.name} leaves {format_duration(max(0.0, left))}, and "
                f"{format_duration(reserve)} are kept for validation and saving",
                0,
            )
        return None

    def __enter__(self) -> Stopping:
        self._before = take_over(self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        give_back(self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = self._clock()
        first = self._received.setdefault(signal.Signals(number), now)
        if number in INSISTING and now - first > ONE_PRESS:
            give_back(self._before)
            signal.raise_signal(number)
