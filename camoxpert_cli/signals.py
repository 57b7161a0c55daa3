"""Signals that ask a command to stop, and their handlers.

A terminal sends SIGINT on Ctrl-C and SIGHUP when it closes; `kill` and services send SIGTERM; what a cluster's
scheduler sends ahead of its time limit is up to the user.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeAlias

ASKING = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP (terminal closed)",
    signal.SIGQUIT: "SIGQUIT",
    signal.SIGUSR1: "SIGUSR1",
    signal.SIGUSR2: "SIGUSR2",
    signal.SIGXCPU: "SIGXCPU (CPU time limit)",
}
# Sent a second time by users who do not want to wait; the system itself repeats SIGXCPU every second.
INSISTING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
# As in shells.
EXIT_CODES = frozenset(128 + number for number in ASKING)
UNHEARD = 128 + signal.SIGPIPE  # the reader of the output has gone
# Seconds within which a repeated signal counts once: `timeout` and others signal both a process and its group.
ONE_PRESS = 1.0
_AGAIN_SECONDS = 0.05

Handler: TypeAlias = Callable[[int, FrameType | None], None]
_asked_at = -ONE_PRESS


class Asked(KeyboardInterrupt):
    """Raised by `interrupt` in the main thread; carries the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise Asked: the handler of commands with nothing to finish, for which every signal acts like Ctrl-C.

    In the middle of an import, the signal is sent again a moment later: packages that are interrupted as they are
    imported may swallow the exception, and fail in odd ways afterwards.
    """
    global _asked_at
    if _is_importing(frame):
        later = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number))
        later.daemon = True
        later.start()
        return
    now = time.monotonic()
    if now - _asked_at > ONE_PRESS:
        _asked_at = now
        raise Asked(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def number_of(error: KeyboardInterrupt) -> signal.Signals:
    """Return the signal that raised `error`."""
    return error.number if isinstance(error, Asked) else signal.SIGINT


def take_over(handler: Handler) -> dict[signal.Signals, Any]:
    """Install `handler` for all signals in ASKING; returns the previous handlers, for `give_back`.

    Signals that are ignored, as under `nohup`, or handled by something else are left alone. Outside the main thread,
    which alone may set handlers, nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    free = (signal.SIG_DFL, signal.default_int_handler, interrupt)
    return {number: signal.signal(number, handler) for number in ASKING if signal.getsignal(number) in free}


def give_back(before: Mapping[signal.Signals, Any]) -> None:
    """Restore the handlers that `take_over` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)
