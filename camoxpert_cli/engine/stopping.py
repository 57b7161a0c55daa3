"""Stop a run early but cleanly: Ctrl-C, other signals and time limits take effect between steps."""

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
    """Why a run stops early; `exit_code` is 128 + the signal's number, or 0 for a time limit."""

    reason: str
    exit_code: int


class Stopping:
    """Handler of signals while it is entered; `due` returns whether the run has to stop.

    Ctrl-C, or another signal that people send, takes effect immediately if repeated after more than a second. For
    signals that are left alone see `signals.take_over`.
    """

    def __init__(self, deadline: Deadline, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns the time in seconds, on the scale of the deadline."""
        self.deadline, self.now = deadline, clock
        self._received: dict[signal.Signals, float] = {}  # and when each was first received
        self._before: dict[signal.Signals, Any] = {}

    def due(self, reserve: float) -> Stop | None:
        """Return why the run has to stop, a signal or less than `reserve` seconds left; None if it may continue."""
        for number in self._received:
            return Stop(f"stopped by {ASKING[number]}", 128 + number)
        left = self.deadline.left(self.now())
        if left < reserve:
            return Stop(
                f"stopped by {self.deadline.name} ({format_duration(max(0.0, left))} remaining, "
                f"{format_duration(reserve)} reserved for validation and saving)",
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
        now = self.now()
        first = self._received.setdefault(signal.Signals(number), now)
        if number in INSISTING and now - first > ONE_PRESS:
            give_back(self._before)
            signal.raise_signal(number)
