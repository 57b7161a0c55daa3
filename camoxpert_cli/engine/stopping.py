"""Ends a run early and well: Ctrl-C, a request to terminate and the clock wait until nothing is half done."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.engine.time_limit import Deadline

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "a request to terminate"}
# Seconds within which a signal that comes twice is one: `timeout`, and others, send it to a process and to its group.
_ONE_PRESS = 1.0


@dataclass(frozen=True)
class Stop:
    """Why a run ends early. `exit_code` is 128 + the signal's number, or 0 for the clock."""

    reason: str
    exit_code: int


class Stopping:
    """Listens to signals while it is entered; `due` tells whether the run has to end.

    The same signal a second later takes effect at once. Signals that something else than Python's own handlers is in
    charge of stay as they are, and so do all of them outside of the main thread, which alone may set handlers.
    """

    def __init__(self, deadline: Deadline, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives the seconds that lie between two presses."""
        self.deadline, self._clock = deadline, clock
        self._received: signal.Signals | None = None
        self._received_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def due(self, reserve: float) -> Stop | None:
        """Why the run has to end: a signal, or less than `reserve` seconds left on the clock. None: it may go on."""
        if self._received is not None:
            return Stop(f"stopped by {_SIGNALS[self._received]}", 128 + self._received)
        left = self.deadline.left(time.time())
        if left < reserve:
            return Stop(
                f"stopped by the clock: {self.deadline.name} leaves {format_duration(max(0.0, left))}, and "
                f"{format_duration(reserve)} are kept for validation and saving",
                0,
            )
        return None

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = self._clock()
        if self._received == number and now - self._received_at > _ONE_PRESS:
            self._restore()
            signal.raise_signal(number)
        if self._received is None:
            self._received, self._received_at = signal.Signals(number), now

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
