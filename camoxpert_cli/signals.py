"""Signals by which a command is asked to end, and who handles them.

A terminal sends Ctrl-C and, as it closes, a hang-up; `kill` and services send a request to terminate; what a cluster's
scheduler sends ahead of its time limit is up to the user.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeAlias

ASKING = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "a request to terminate",
    signal.SIGHUP: "a hang-up (SIGHUP)",
    signal.SIGQUIT: "a request to quit (SIGQUIT)",
    signal.SIGUSR1: "a signal (SIGUSR1)",
    signal.SIGUSR2: "a signal (SIGUSR2)",
    signal.SIGXCPU: "a limit of processor time (SIGXCPU)",
}
# What people send a second time where they do not want to wait; the system repeats a limit every second.
INSISTING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
# As shells have it.
EXIT_CODES = frozenset(128 + number for number in ASKING)
UNHEARD = 128 + signal.SIGPIPE  # whoever read the output has gone
# Seconds within which a signal that comes twice is one: `timeout`, and others, send it to a process and to its group.
ONE_PRESS = 1.0

Handler: TypeAlias = Callable[[int, FrameType | None], None]
_asked_at = -ONE_PRESS


class Asked(KeyboardInterrupt):
    """What `interrupt` raises wherever the main thread is."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler for a command that has nothing to finish: any of the signals does what Ctrl-C does."""
    global _asked_at
    now = time.monotonic()
    if now - _asked_at > ONE_PRESS:
        _asked_at = now
        raise Asked(number)


def number_of(error: KeyboardInterrupt) -> signal.Signals:
    """The signal that raised it."""
    return error.number if isinstance(error, Asked) else signal.SIGINT


def take_over(handler: Handler) -> dict[signal.Signals, Any]:
    """Have `handler` called from now on; returns the handlers before, for `give_back`.

    Signals that are ignored, as by `nohup`, or that something else is in charge of stay as they are, and so do all of
    them outside of the main thread, which alone may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    free = (signal.SIG_DFL, signal.default_int_handler, interrupt)
    return {number: signal.signal(number, handler) for number in ASKING if signal.getsignal(number) in free}


def give_back(before: Mapping[signal.Signals, Any]) -> None:
    """Undo `take_over`."""
    for number, handler in before.items():
        signal.signal(number, handler)
