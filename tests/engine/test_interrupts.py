from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from camoxpert_cli.engine.interrupts import holding_interrupts, whole


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def press_within_a_block(done: list[str], times: int = 1) -> None:
    with holding_interrupts():
        for _ in range(times):
            press_ctrl_c()
        done.append("finished")


def test_ctrl_c_waits_for_the_end() -> None:
    """What was begun is finished, then the interrupt comes; outside of the block it comes at once again."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        press_within_a_block(done)

    assert done == ["finished"]
    with pytest.raises(KeyboardInterrupt):
        press_ctrl_c()


def test_pressed_twice_it_does_not_wait() -> None:
    """Whoever presses again means it: a block that hangs can be left."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        press_within_a_block(done, times=2)

    assert done == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_blocks_within_blocks() -> None:
    """The interrupt waits for the outermost block."""
    done: list[str] = []

    def press_within_two() -> None:
        with holding_interrupts():
            press_within_a_block(done)
            done.append("outer finished")

    with pytest.raises(KeyboardInterrupt):
        press_within_two()

    assert done == ["finished", "outer finished"]


def test_error_in_a_block() -> None:
    """An error passes through, and the usual handler is back."""
    with pytest.raises(ValueError, match="broken"), holding_interrupts():
        raise ValueError("broken")

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_handlers_are_left_alone() -> None:
    """Where Ctrl-C is ignored, as in a background job, or handled by somebody else, it stays so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with holding_interrupts():
            press_ctrl_c()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads() -> None:
    """Only the main thread may set a handler; elsewhere the block just runs."""
    done = []

    def work() -> None:
        with holding_interrupts():
            done.append("finished")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert done == ["finished"]


def test_batches_are_received_whole() -> None:
    """Ctrl-C while a batch is on its way takes effect when it has come, and before the next one is asked for."""
    asked = []

    def batches() -> Iterator[int]:
        for number in range(3):
            asked.append(number)
            if number == 1:
                press_ctrl_c()
            yield number

    received = whole(batches())

    assert next(received) == 0
    with pytest.raises(KeyboardInterrupt):
        next(received)
    assert asked == [0, 1]


def test_all_batches_come() -> None:
    """Without Ctrl-C the batches are those of the loader, and errors in it are the caller's."""

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("unreadable")

    assert list(whole([1, 2, 3])) == [1, 2, 3]
    assert list(whole([])) == []
    with pytest.raises(ValueError, match="unreadable"):
        list(whole(broken()))
