from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from camoxpert_cli.engine.stopping import Stopping
from camoxpert_cli.engine.time_limit import Deadline

NEVER = Deadline()


@pytest.fixture(autouse=True)
def _signals_of_a_terminal() -> Iterator[None]:
    """Signals do what they do in a terminal, however pytest was started."""
    own: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code", "reason"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "a request to terminate")]
)
def test_a_signal_waits_for_the_check(number: signal.Signals, code: int, reason: str) -> None:
    """What is under way goes on; the next check ends it with the code that shells give the signal."""
    done = []
    with Stopping(NEVER) as stopping:
        assert stopping.due(0.0) is None
        signal.raise_signal(number)
        done.append("finished")
        stop = stopping.due(0.0)

    assert done == ["finished"]
    assert stop is not None
    assert (stop.exit_code, stop.reason) == (code, f"stopped by {reason}")


def test_pressed_twice_it_does_not_wait() -> None:
    """Whoever presses again means it: a step that hangs can be left. Twice in an instant is one press."""
    moments = iter([10.0, 10.1, 10.9, 12.0])
    done = []

    def press_twice() -> None:
        with Stopping(NEVER, clock=lambda: next(moments)):
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
                done.append("went on")
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert done == ["went on"] * 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_first_signal_counts() -> None:
    """A service that terminates what Ctrl-C has asked to end does not change why it ends."""
    with Stopping(NEVER) as stopping:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        stop = stopping.due(0.0)

    assert stop is not None
    assert stop.exit_code == 130


def test_only_the_same_signal_twice_does_not_wait() -> None:
    """Ctrl-C while a run already ends for another reason, however late, does not take its last save away."""
    moments = iter([10.0, 20.0])
    try:
        with Stopping(NEVER, clock=lambda: next(moments)) as stopping:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            stop = stopping.due(0.0)
    except KeyboardInterrupt:
        pytest.fail("it took effect at once")

    assert stop is not None
    assert stop.exit_code == 143


def test_handlers_are_given_back() -> None:
    """After the block, and after an error in it, signals do what they did before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def fail_within() -> None:
        with Stopping(NEVER):
            assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail_within()
    assert {number: signal.getsignal(number) for number in before} == before


def test_other_handlers_are_left_alone() -> None:
    """Where Ctrl-C is ignored, as in a background job, or handled by somebody else, it stays so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopping(NEVER) as stopping:
            signal.raise_signal(signal.SIGINT)
            assert stopping.due(0.0) is None
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads() -> None:
    """Only the main thread may set handlers; elsewhere there is the clock alone."""
    outcome: list[int] = []

    def work() -> None:
        with Stopping(Deadline(0.0, "the time limit of 1s")) as stopping:
            stop = stopping.due(0.0)
            outcome.append(-1 if stop is None else stop.exit_code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert outcome == [0]


def test_the_clock_keeps_its_reserve() -> None:
    """It ends a run as soon as less is left than validation and saving need, with exit code 0 and its reason."""
    stopping = Stopping(Deadline(time.time() + 100, "the time limit of 2m"))
    stop = stopping.due(110.0)

    assert stopping.due(90.0) is None
    assert stop is not None
    assert "by the clock: the time limit of 2m leaves 1m40s, and 1m50s are" in stop.reason
    assert stop.exit_code == 0


def test_no_limit_never_ends() -> None:
    """Without a limit no reserve is too long."""
    assert Stopping(NEVER).due(1e12) is None
    assert NEVER.left(1e12) == math.inf
