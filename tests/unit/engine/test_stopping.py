from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from camoxpert_cli import signals
from camoxpert_cli.engine.stopping import Stopping
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.signals import ASKING

NEVER = Deadline()


@pytest.fixture(autouse=True)
def _signals_of_a_terminal() -> Iterator[None]:
    """Signals do what they do in a terminal, however pytest was started."""
    own: dict[signal.Signals, Any] = dict.fromkeys(ASKING, signal.SIG_DFL)
    own[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (signal.SIGINT, 130, "Ctrl-C"),
        (signal.SIGTERM, 143, "SIGTERM"),
        (signal.SIGHUP, 129, "SIGHUP (terminal closed)"),
        (signal.SIGQUIT, 131, "SIGQUIT"),
        (signal.SIGUSR1, 128 + signal.SIGUSR1, "SIGUSR1"),
        (signal.SIGUSR2, 128 + signal.SIGUSR2, "SIGUSR2"),
        (signal.SIGXCPU, 128 + signal.SIGXCPU, "SIGXCPU (CPU time limit)"),
    ],
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


def test_pressed_twice_after_another_signal() -> None:
    """A run that a scheduler has asked to end, and that hangs, can still be left."""
    moments = iter([10.0, 20.0, 22.0])
    with Stopping(NEVER, clock=lambda: next(moments)) as stopping:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGINT)
        stop = stopping.due(0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    assert stop is not None
    assert stop.exit_code == 128 + signal.SIGUSR1


@pytest.mark.parametrize("number", [signal.SIGXCPU, signal.SIGHUP, signal.SIGUSR1])
def test_what_the_system_repeats(number: signal.Signals) -> None:
    """A limit of processor time is told anew every second: nobody is in a hurry, and the last save stays."""
    moments = iter([10.0, 20.0, 30.0])
    signals.take_over(signals.interrupt)  # which takes effect at once
    try:
        with Stopping(NEVER, clock=lambda: next(moments)) as stopping:
            for _ in range(3):
                signal.raise_signal(number)
            assert stopping.due(0.0) is not None
    except KeyboardInterrupt:
        pytest.fail("it took effect at once")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_takes_over_from_the_command(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a run begins a signal ends the command at once, as Ctrl-C does; within it, between two steps."""
    monkeypatch.setattr(signals, "_asked_at", -signals.ONE_PRESS)
    signals.take_over(signals.interrupt)
    try:
        with Stopping(NEVER) as stopping:
            signal.raise_signal(number)
            assert stopping.due(0.0) is not None
    except KeyboardInterrupt:
        pytest.fail("it took effect at once")
    with pytest.raises(signals.Asked) as caught:
        signal.raise_signal(number)

    assert signals.number_of(caught.value) == number
    signal.raise_signal(number)  # within the second: `timeout` sends it to the process and to its group


def test_handlers_are_given_back() -> None:
    """After the block, and after an error in it, signals do what they did before."""
    before = {number: signal.getsignal(number) for number in ASKING}

    def fail_within() -> None:
        with Stopping(NEVER):
            assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail_within()
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_handlers_are_left_alone(number: signal.Signals) -> None:
    """Where one is ignored, as in a background job or by `nohup`, or handled by somebody else, it stays so."""
    heard: list[int] = []
    signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *arguments: heard.append(arguments[0]))
    signals.take_over(signals.interrupt)
    with Stopping(NEVER) as stopping:
        for each in (number, signal.SIGUSR1):
            signal.raise_signal(each)
        assert stopping.due(0.0) is None
        assert signal.getsignal(number) is signal.SIG_IGN
    assert heard == [signal.SIGUSR1]


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
    stopping = Stopping(Deadline(time.monotonic() + 100, "the time limit of 2m"))
    stop = stopping.due(110.0)

    assert stopping.due(90.0) is None
    assert stop is not None
    assert "stopped by the time limit of 2m (1m40s remaining, 1m50s reserved for" in stop.reason
    assert stop.exit_code == 0


def test_no_limit_never_ends() -> None:
    """Without a limit no reserve is too long."""
    assert Stopping(NEVER).due(1e12) is None
    assert NEVER.left(1e12) == math.inf
