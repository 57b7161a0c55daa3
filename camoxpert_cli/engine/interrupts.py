"""Ctrl-C at moments when nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def holding_interrupts() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block; pressed twice, at once.

    Where something else than Python's own handler is in charge, nothing changes.
    """
    original = signal.getsignal(signal.SIGINT)
    if original is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, original)
    if pressed:
        raise KeyboardInterrupt


def whole(batches: Iterable[Item]) -> Iterator[Item]:
    """The batches, each received to its end: a worker complains aloud when nobody takes what it hands over."""
    iterator = iter(batches)
    while True:
        with holding_interrupts():
            try:
                batch = next(iterator)
            except StopIteration:
                return
        yield batch
