from __future__ import annotations

import errno
import io
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from camoxpert_cli import console
from camoxpert_cli.console import Report

Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """Stands in for stderr on a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    yield
    console.be_quiet(False)


def test_counts() -> None:
    """One is singular, all else plural, of nouns of every kind."""
    assert [console.counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [console.counted(number, "process", "processes") for number in (1, 2)] == ["1 process", "2 processes"]


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """stderr, on a terminal of 80 columns; in the test itself, for pytest sets stderr anew after fixtures."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "JPY_PARENT_PID", "MPLBACKEND", "RANK"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


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


def test_a_report_in_a_pipe(capsys: Capture, clock: list[float]) -> None:
    """Of a report a pipe gets the line; what finds it is asked only where it is shown."""
    asked = []

    def report() -> Report:
        asked.append(clock[0])
        return Report("loss 1.5", ["a row"])

    with console.progress("Epoch 1/3", total=100) as advance:
        for _ in range(50):
            clock[0] += 0.5
            advance(1, report)

    assert capsys.readouterr().err == "Epoch 1/3  40/100  loss 1.5\n"
    assert asked == [120.0]


def test_quiet(capsys: Capture, clock: list[float]) -> None:
    """Quiet, results, warnings and errors are all there is."""
    console.be_quiet(True)
    console.say("going on")
    console.warn("odd")
    console.fail("broken", "mend it")
    console.result("asked for")
    with console.progress("Epoch 1/3", total=100) as advance:
        clock[0] += 100
        advance(1, "loss 1.5")
    captured = capsys.readouterr()

    assert captured.out == "asked for\n"
    assert captured.err == "Warning: odd\nError: broken\nTry:   mend it\n"


def test_bar_on_a_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal there is a bar with title, count and note; a line said meanwhile is kept, the bar is not."""
    terminal = open_terminal(monkeypatch)
    with console.progress("Epoch 2/3", total=8, done=2) as advance:
        clock[0] += 1
        advance(3, "loss 0.25")
        console.say("a line")
    written = terminal.getvalue()

    assert "a line\n" in written
    assert all(part in written for part in ("Epoch 2/3", "5/8", "loss 0.25"))
    # The bar's own line is erased at the end: clear it, and go up to it.
    assert written.endswith(("\x1b[2K", "\x1b[1A\x1b[2K"))


def test_rows_below_the_bar(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A report's rows stand below the bar, cut to the terminal; nothing is drawn more often than five times a second.

    No thread draws: a loader that forks at the same moment would inherit its locks.
    """
    terminal = open_terminal(monkeypatch)
    asked = []

    def report() -> Report:
        asked.append(clock[0])
        return Report("a line", [f"loss {len(asked)}", "x" * 200])

    threads = threading.active_count()
    with console.progress("Epoch 2/3", total=100) as advance:
        for _ in range(20):
            clock[0] += 0.11
            advance(1, report)
        inside = threading.active_count()
    written = terminal.getvalue()

    assert inside == threads
    assert "a line" not in written
    assert "loss 1" in written
    assert "x" * 80 in written
    assert "x" * 81 not in written
    assert all(later - earlier >= console.LIVE_INTERVAL for earlier, later in pairwise(asked))
    assert len(asked) == 10


def test_no_color(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves movements of the cursor, and no colour."""
    terminal = open_terminal(monkeypatch)
    colours = []
    for value in ("", "1"):
        monkeypatch.setenv("NO_COLOR", value)
        before = len(terminal.getvalue())
        with console.progress("Epoch 2/3", total=8, done=2) as advance:
            clock[0] += 1
            advance(3, "loss 0.25")
        colours.append([code for code in terminal.getvalue()[before:].split("\x1b[")[1:] if "m" in code[:10]])

    assert colours[0]
    assert colours[1] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TERM", "dumb"),
        ("JPY_PARENT_PID", "17"),
        ("MPLBACKEND", "module://matplotlib_inline.backend_inline"),
        ("RANK", "1"),
    ],
)
def test_no_bar_where_none_can_move(clock: list[float], monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A notebook's `!` has a terminal that keeps every movement; it gets plain lines, and so does what cannot move."""
    terminal = open_terminal(monkeypatch)
    monkeypatch.setenv(name, value)
    with console.progress("Epoch 2/3", total=8) as advance:
        clock[0] += 21
        advance(3, "loss 0.25")

    assert terminal.getvalue() == "Epoch 2/3  3/8  loss 0.25\n"


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", "2 x 3 ... caf\\xe9\\udcff"), ("latin-1", "2 × 3 ... café\\udcff")]
)
def test_encodings(monkeypatch: pytest.MonkeyPatch, encoding: str, expected: str) -> None:
    """What a stream's encoding lacks is spelled out in ASCII; what is no letter at all is escaped."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    for name, stream in zip(("stdout", "stderr"), streams, strict=True):
        monkeypatch.setattr(sys, name, stream)
    console.prepare_streams()
    console.result("2 × 3 … café\udcff")
    console.say("2 × 3 … café\udcff")
    for stream in streams:
        stream.flush()

    assert [stream.buffer.getvalue().decode(encoding) for stream in streams] == [f"{expected}\n"] * 2


def test_words_stay_whole_on_a_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long warning is broken between words on a terminal, and is one line elsewhere; a path is never broken."""
    path = "/somewhere/" + "x" * 90
    console.warn(f"{'word ' * 20}{path}")
    plain = capsys.readouterr().err
    terminal = open_terminal(monkeypatch)
    console.warn(f"{'word ' * 20}{path}")
    lines = terminal.getvalue().splitlines()

    assert plain == f"Warning: {'word ' * 20}{path}\n"
    assert [len(line) <= 80 for line in lines] == [True, True, False]
    assert lines[-1] == f"  {path}"


def test_entries_stay_in_their_column(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a name stands for goes on below itself on a terminal, with the columns whole, and is one line elsewhere."""
    console.entry("name ", "word " * 20)
    plain = capsys.readouterr().out
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", terminal)
    console.entry("name ", "word " * 20)

    assert plain == f"name   {'word ' * 20}".rstrip() + "\n"
    assert terminal.getvalue().splitlines() == [
        f"name   {'word ' * 14}word"[:76].rstrip(),
        f"       {'word ' * 6}".rstrip(),
    ]


def test_lines_of_a_warning_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal each line is folded by itself, and never within an option."""
    stream = open_terminal(monkeypatch)
    options = " ".join(["--stage2-lr 5e-4"] * 9)
    console.warn(console.filled(f"two lines:\n  first: {options}", indent=4, width=120))
    written = stream.getvalue().splitlines()

    assert written[0] == "Warning: two lines:"
    assert written[1].startswith("  first: --stage2-lr")
    assert max(map(len, written)) <= 80
    assert " ".join(written).split().count("--stage2-lr") == 9


def test_a_name_that_looks_like_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    """No line but the first begins where messages begin."""
    console.fail("cannot read a\nError: b.png", "mend it")
    console.warn("odd: a\nTry:   rm -rf b")

    assert capsys.readouterr().err == (
        "Error: cannot read a\n  Error: b.png\nTry:   mend it\nWarning: odd: a\n  Try:   rm -rf b\n"
    )


def test_sizes() -> None:
    """MiB below one GiB; what is weighed against a GPU or a disk has two places where it is small."""
    assert [console.byte_size(size) for size in (3e5, 2**30 - 2**20, 2**30, 15.83e9)] == [
        "0 MiB",
        "1023 MiB",
        "1.0 GiB",
        "14.7 GiB",
    ]
    assert [console.in_gib(size) for size in (2**28, 15.83e9)] == ["0.25 GiB", "14.7 GiB"]


_OBEYED = [*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xD800]
UNSAFE = "".join(map(chr, [*_OBEYED, 0xDFFF]))


@given(name=st.text(st.one_of(st.sampled_from(UNSAFE), st.characters()), max_size=40))
@example("\x1b]0;title\x07\x1b[2J")
@example("\r\u202egnp.exe")
def test_names_that_a_terminal_would_obey(name: str) -> None:
    """Whatever a file is called, or holds, is shown: nothing reaches the screen that moves, hides or turns a text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", printed := Terminal())
        patch.setattr(sys, "stderr", said := Terminal())
        patch.setenv("TERM", "dumb")
        patch.setattr(console, "PLAIN_INTERVAL", 0.0)
        console.result(f"in {name}")
        console.entry(name, name)
        console.result(console.table([name, "b"], [[name, name]]))
        for speak in (console.say, console.warn):
            speak(name)
        console.fail(name, name, details=name)
        with console.progress(name, 3) as advance:
            advance(1, name)
            advance(1, lambda: Report(name, [name]))

    for text in (printed.getvalue(), said.getvalue()):
        assert not set(text) & set(UNSAFE)
        text.encode()


def test_columns_of_names_that_are_spelled_out() -> None:
    """A table is as wide as what is shown."""
    lines = console.table(["name", "n"], [["\x1b[2J", "1"], ["plain", "22"]]).splitlines()

    assert lines == ["name      n", "\\x1b[2J   1", "plain    22"]


def test_a_bar_with_such_names(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is no markup either: brackets in it are a name's brackets."""
    terminal = open_terminal(monkeypatch)
    with console.progress("Test set [/red]\x1b[2J\x9b", total=8) as advance:
        for note in ("[red]\x1b[2Jx", lambda: Report("", ["[red]\x1b[2Jy"])):
            clock[0] += 1
            advance(1, note)
    written = terminal.getvalue()

    assert "Test set [/red]\\x1b[2J" in written
    assert "[red]\\x1b[2Jx" in written
    assert "[red]\\x1b[2Jy" in written
    assert "\x1b[2J" not in written
    assert "\x9b" not in written


class Gone(Terminal):
    """A stream that takes nothing any more."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "it is gone")


GONE = [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF]


@pytest.mark.parametrize("number", GONE)
@pytest.mark.parametrize("terminal", ["dumb", "xterm"])
def test_nobody_listens(clock: list[float], monkeypatch: pytest.MonkeyPatch, number: int, terminal: str) -> None:
    """A stderr that is gone costs what would have been said, and the work goes on: with bars and without."""
    open_terminal(monkeypatch)
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setattr(sys, "stderr", Gone(number))
    console.say("going on")
    console.warn("odd")
    console.fail("broken", "mend it", "details")
    done = []
    with console.progress("Epoch 1/3", total=9) as advance:
        for step in range(5):
            clock[0] += 21
            advance(1, lambda: Report("line", ["row"]))
            console.say("within")
            done.append(step)

    assert done == list(range(5))


@pytest.mark.parametrize("number", GONE)
def test_nobody_gets_the_results(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """That is an error of its own, which says why."""
    monkeypatch.setattr(sys, "stdout", Gone(number))
    with pytest.raises(console.NotTold, match="it is gone") as caught:
        console.result("42")

    assert caught.value.errno == number


def test_without_streams(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no stderr at all nothing is said; it does not come out among the results."""
    monkeypatch.setattr(sys, "stderr", None)
    console.say("going on")
    console.warn("odd")
    console.fail("broken", "mend it")
    with console.progress("Epoch 1/3", total=9) as advance:
        advance(1, "note")
    console.result("42")

    assert capsys.readouterr().out == "42\n"
