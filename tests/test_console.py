from __future__ import annotations

import io
import sys
import time

import pytest

from camoxpert_cli import console

Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """Stands in for stderr on a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_results_go_to_stdout(capsys: Capture) -> None:
    """What was asked for is on stdout, everything else on stderr."""
    console.result("asked for")
    console.say("going on")
    console.say()
    console.warn("odd")
    console.fail("broken", "mend it")
    console.fail("gone", "")
    captured = capsys.readouterr()

    assert captured.out == "asked for\n"
    assert captured.err == "going on\n\nWarning: odd\nError: broken\nTry:   mend it\nError: gone\n"


def test_table() -> None:
    """Names are aligned to the left, numbers to the right, and no line ends with spaces."""
    text = console.table(["", "pictures", "IoU"], [["validation", "3", "0.5000"], ["test", "1000", ""]])

    assert text.splitlines() == [
        "            pictures     IoU",
        "validation         3  0.5000",
        "test            1000",
    ]


def test_table_without_rows() -> None:
    """A table of nothing is its header."""
    assert console.table(["a", "b"], []) == "a  b"


def test_plain_progress(capsys: Capture, clock: list[float]) -> None:
    """Into a pipe goes one whole line every twenty seconds, whatever the number of steps."""
    with console.progress("Epoch 1/3", total=100) as advance:
        for _ in range(100):
            clock[0] += 0.5
            advance(1, "loss 1.5")
    lines = capsys.readouterr().err.splitlines()

    assert lines == ["Epoch 1/3  40/100  loss 1.5", "Epoch 1/3  80/100  loss 1.5"]


def test_plain_progress_goes_on(capsys: Capture, clock: list[float]) -> None:
    """A count that was resumed begins where it stopped; without a note the line ends with the count."""
    with console.progress("Test", total=10, done=4) as advance:
        clock[0] += 21
        advance(2, "")

    assert capsys.readouterr().err == "Test  6/10\n"


def test_short_work_is_silent_in_a_pipe(capsys: Capture, clock: list[float]) -> None:
    """What takes less than the interval, or has just ended, leaves no line."""
    with console.progress("Validation", total=2) as advance:
        advance(1, "")
        clock[0] += 1000
        advance(1, "")

    assert capsys.readouterr().err == ""


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal there is a bar with title, count and note; a line said meanwhile is kept, the bar is not."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with console.progress("Epoch 2/3", total=8, done=2) as advance:
        advance(3, "loss 0.25")
        console.say("a line")
    written = terminal.getvalue()

    assert "a line\n" in written
    assert all(part in written for part in ("Epoch 2/3", "5/8", "loss 0.25"))
    # The bar's own line is erased at the end: clear it, and go up to it.
    assert written.endswith(("\x1b[2K", "\x1b[1A\x1b[2K"))
