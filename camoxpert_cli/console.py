"""The only place that prints. Results go to stdout, everything else to stderr.

On a terminal there are live progress bars; into a pipe, a file or a notebook cell goes one plain line now and then.
Names and texts that come from files are shown with their control characters spelled out, on both streams: what needs
them as they are asks for JSON. A stream that takes no more costs what would have been said, and never the work: only
results that nobody gets are an error, `NotTold`.
"""

from __future__ import annotations

import atexit
import codecs
import io
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TextIO, TypeAlias

# Seconds between two progress lines where there is no terminal, and between two looks of a bar where there is one.
PLAIN_INTERVAL = 20.0
LIVE_INTERVAL = 0.2

# For what a terminal or file cannot hold in its encoding.
_IN_ASCII = {"×": "x", "…": "...", "–": "-", "—": "-", "→": "->", "µ": "u", "±": "+-", "≤": "<=", "≥": ">=", "•": "*"}

# Whatever a terminal may obey instead of showing it: controls but for the ends of lines and tabs, what turns the
# direction of a text or ends its line elsewhere, and half characters, which stand for bytes that are no text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_quiet = False


class NotTold(OSError):
    """stdout did not take a result: its reader has gone, the disk behind it is full."""


class Report(NamedTuple):
    """How work goes: `line` where there is no terminal, `rows` below the bar where there is one."""

    line: str
    rows: Sequence[str] = ()


# A few words, or what finds them when they are about to be shown.
Note: TypeAlias = str | Callable[[], Report]
Advance: TypeAlias = Callable[[int, Note], None]


def is_quiet() -> bool:
    return _quiet


def be_quiet(wanted: bool) -> None:
    """Whether only results, warnings and errors are printed from here on."""
    global _quiet
    _quiet = wanted


def prepare_streams() -> None:
    """Have stdout and stderr take any text: in ASCII where their encoding ends, escaped where it is no text at all.

    What was closed when this process was started leads nowhere from now on: the first file that is opened would take
    its place, and get whatever a library has to say.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        if nowhere == 1:
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        if nowhere == 2:
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    os.close(nowhere)
    atexit.register(_flush)
    codecs.register_error("camox", _spell_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="camox")


def printable(text: str) -> str:
    """`text` with everything in it spelled out that a terminal might obey, but for line ends and tabs."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: str = "") -> None:
    """A line about what is going on."""
    if not _quiet:
        _to_stderr(text)


def wrapped(text: str, *, indent: int = 2, stream: TextIO | None = None) -> str:
    """A sentence with its words whole where `stream`, stderr if not given, is a terminal; in a log it is one line.

    Paths and commands stay whole anyway. Lines after the first begin with `indent` spaces.
    """
    text = printable(text)
    stream = stream or sys.stderr
    if stream is None or not stream.isatty():
        return text
    return filled(text, indent=indent, width=shutil.get_terminal_size().columns)


def filled(text: str, *, indent: int = 2, width: int = 80) -> str:
    """Each line of `text` in lines of at most `width` columns, those after its first with `indent` spaces in front.

    Words stay whole, paths and options too, however long.
    """
    style = textwrap.TextWrapper(width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(style.fill(line) for line in text.splitlines())


def warn(text: str) -> None:
    _to_stderr(wrapped(_in_one_piece(f"Warning: {text}")))


def fail(message: str, hint: str, details: str = "") -> None:
    """Why the program ends, and what to type next."""
    text = _in_one_piece(f"Error: {message}")
    _to_stderr(text if "\n" in text else wrapped(text))
    if details:
        _to_stderr(details)
    if hint:
        _to_stderr(f"Try:   {hint}")


def result(text: str) -> None:
    """A line of what the user asked for. Raises NotTold where nobody gets it."""
    try:
        print(printable(text), flush=True)
    except OSError as error:
        _lead_nowhere(sys.stdout)
        raise NotTold(error.errno, error.strerror) from error


def entry(name: str, text: str) -> None:
    """`text` behind `name`, which fills the first column, as a result: on a terminal all of it to the right of that."""
    result(wrapped(f"{name}  {text}".rstrip(), indent=len(name) + 2, stream=sys.stdout))


def page(text: str) -> None:
    """Print Markdown as a result: rendered if stdout is a terminal, unchanged otherwise. Raises NotTold."""
    if sys.stdout is None or not sys.stdout.isatty():
        result(text.removesuffix("\n"))
        return
    from camoxpert_cli import markdown

    try:
        markdown.show(text, sys.stdout, shutil.get_terminal_size().columns)
        sys.stdout.flush()
    except OSError as error:
        _lead_nowhere(sys.stdout)
        raise NotTold(error.errno, error.strerror) from error


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces: the first to the left, the others to the right."""
    cells = [[printable(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def byte_size(size: float) -> str:
    """Bytes as people say them."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def in_gib(size: float) -> str:
    """Bytes to two places below ten GiB, for what is weighed against a GPU or a disk."""
    return f"{size / 2**30:.2f} GiB" if size < 10 * 2**30 else f"{size / 2**30:.1f} GiB"


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Yields a function that takes how many more are done and a few words on how it goes."""
    if _quiet:
        yield lambda count, note: None
    elif _is_live():
        with _bar(title, total, done) as advance:
            yield advance
    else:
        yield _plain_lines(title, total, done)


def _is_live() -> bool:
    """Whether a bar that moves can be seen, and is this process's to draw."""
    return (
        sys.stderr is not None
        and sys.stderr.isatty()
        and os.environ.get("TERM") not in (None, "dumb", "unknown")
        # What a notebook's `!` starts finds a terminal, whose every movement the cell keeps.
        and "JPY_PARENT_PID" not in os.environ
        and "inline" not in os.environ.get("MPLBACKEND", "")
        # Of several processes at one terminal the first draws.
        and os.environ.get("RANK", "0") == "0"
    )


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    ]
    console = Console(file=_Unbroken(sys.stderr), highlight=False)  # type: ignore[arg-type]
    bars = Progress(*columns, console=console, auto_refresh=False)
    task = bars.add_task(printable(title), total=total, completed=done, note="")
    # Drawn by `advance`: a thread of its own would be in the way when loaders fork.
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=sys.stdout.isatty())
    drawn_at = -LIVE_INTERVAL

    def advance(count: int, note: Note) -> None:
        nonlocal drawn_at
        bars.advance(task, count)
        if time.monotonic() - drawn_at < LIVE_INTERVAL:
            return
        drawn_at = time.monotonic()
        rows: Sequence[str] = ()
        if isinstance(note, str):
            bars.update(task, note=printable(note))
        else:
            rows = note().rows
        live.update(Group(bars, *(Text(printable(row), no_wrap=True, overflow="crop") for row in rows)), refresh=True)

    with live:
        live.update(bars, refresh=True)
        yield advance


def _plain_lines(title: str, total: int, done: int) -> Advance:
    last_line = time.monotonic()

    def advance(count: int, note: Note) -> None:
        nonlocal done, last_line
        done += count
        if time.monotonic() - last_line >= PLAIN_INTERVAL and done < total:
            last_line = time.monotonic()
            say(f"{title}  {done}/{total}  {note if isinstance(note, str) else note().line}".rstrip())

    return advance


def _in_one_piece(text: str) -> str:
    """Lines after the first are indented: the name of a file may have some that look like messages of their own."""
    return re.sub(r"\n(?=\S)", "\n  ", text)


def _to_stderr(text: str) -> None:
    if sys.stderr is not None:  # print() would take stdout
        with suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)


class _Unbroken:
    """A stream that drops what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _flush() -> None:
    """What nobody takes any more would have Python end with an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _lead_nowhere(stream)


def _lead_nowhere(stream: TextIO) -> None:
    """What could not be written, Python would try once more as it ends, and complain."""
    with suppress(OSError, ValueError):  # it has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    escaped = (_IN_ASCII.get(each) or each.encode("ascii", "backslashreplace").decode() for each in missing)
    return "".join(escaped), error.end
