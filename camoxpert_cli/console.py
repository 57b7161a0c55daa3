"""The only module that prints. Results go to stdout, everything else to stderr.

A terminal shows live progress bars; a pipe, a file or a notebook cell gets a plain line now and then. Control
characters in names and texts from files are escaped on both streams; use JSON for the unchanged values. A stream that
can no longer be written to loses messages but never stops the work: only lost results are an error, `NotTold`.
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

# Seconds between progress lines without a terminal, and between redraws of a progress bar with one.
PLAIN_INTERVAL = 20.0
LIVE_INTERVAL = 0.2

# Replacements for characters that the stream's encoding lacks.
_IN_ASCII = {"×": "x", "…": "...", "–": "-", "—": "-", "→": "->", "µ": "u", "±": "+-", "≤": "<=", "≥": ">=", "•": "*"}

# Characters that a terminal may interpret instead of showing: controls except line ends and tabs, other line
# separators, changes of text direction, and surrogates, which stand for undecodable bytes.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_quiet = False


class NotTold(OSError):
    """A result could not be written to stdout: the reader has gone, or the disk is full."""


class Report(NamedTuple):
    """Progress of the work: `line` is printed without a terminal, `rows` below the progress bar with one."""

    line: str
    rows: Sequence[str] = ()


# A short text, or a function that builds it when it is about to be shown.
Note: TypeAlias = str | Callable[[], Report]
Advance: TypeAlias = Callable[[int, Note], None]


def is_quiet() -> bool:
    """Return whether only results, warnings and errors are printed."""
    return _quiet


def be_quiet(wanted: bool) -> None:
    """Set whether only results, warnings and errors are printed from now on."""
    global _quiet
    _quiet = wanted


def prepare_streams() -> None:
    """Make stdout and stderr accept any text: characters outside their encoding become ASCII or are escaped.

    Standard streams that were closed at startup are connected to /dev/null: otherwise the first file opened would take
    their descriptor and receive whatever a library prints.
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
    """Return `text` with all characters escaped that a terminal might interpret, except line ends and tabs."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: str = "") -> None:
    """Print a status line to stderr, unless quiet."""
    if not _quiet:
        _to_stderr(text)


def wrapped(text: str, *, indent: int = 2, stream: TextIO | None = None) -> str:
    """Return `text` wrapped to the terminal's width if `stream` (default: stderr) is a terminal, otherwise unwrapped.

    Paths and commands are never broken. Lines after the first are indented by `indent` spaces.
    """
    text = printable(text)
    stream = stream or sys.stderr
    if stream is None or not stream.isatty():
        return text
    return filled(text, indent=indent, width=shutil.get_terminal_size().columns)


def filled(text: str, *, indent: int = 2, width: int = 80) -> str:
    """Return `text` with each line wrapped to `width` columns, continuation lines indented by `indent` spaces.

    Words are never broken, nor are paths and options, however long.
    """
    style = textwrap.TextWrapper(width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(style.fill(line) for line in text.splitlines())


def warn(text: str) -> None:
    """Print a warning to stderr."""
    _to_stderr(wrapped(_in_one_piece(f"Warning: {text}")))


def fail(message: str, hint: str, details: str = "") -> None:
    """Print to stderr why the program ends and what to type next."""
    text = _in_one_piece(f"Error: {message}")
    _to_stderr(text if "\n" in text else wrapped(text))
    if details:
        _to_stderr(details)
    if hint:
        _to_stderr(f"Try:   {hint}")


def result(text: str) -> None:
    """Print a line of results to stdout. Raises NotTold if it cannot be written."""
    try:
        print(printable(text), flush=True)
    except OSError as error:
        _lead_nowhere(sys.stdout)
        raise NotTold(error.errno, error.strerror) from error


def entry(name: str, text: str) -> None:
    """Print `name` and `text` as a result, side by side; on a terminal, wrapped text stays right of the name."""
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
    """Return a table with columns aligned by spaces: the first to the left, the others to the right."""
    cells = [[printable(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 image", "2 images"; `plural` is for nouns that do not simply end in s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def byte_size(size: float) -> str:
    """Format a number of bytes in MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def in_gib(size: float) -> str:
    """Format a number of bytes in GiB, with two decimals below 10 GiB, for comparison with a GPU or a disk."""
    return f"{size / 2**30:.2f} GiB" if size < 10 * 2**30 else f"{size / 2**30:.1f} GiB"


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show progress; yields a function `advance(count, note)` to call with newly finished items and a short note."""
    if _quiet:
        yield lambda count, note: None
    elif _is_live():
        with _bar(title, total, done) as advance:
            yield advance
    else:
        yield _plain_lines(title, total, done)


def _is_live() -> bool:
    """Return whether a live bar is visible, and this process is the one to draw it."""
    return (
        sys.stderr is not None
        and sys.stderr.isatty()
        and os.environ.get("TERM") not in (None, "dumb", "unknown")
        # A command started by a notebook's `!` sees a terminal, but the cell keeps every redraw.
        and "JPY_PARENT_PID" not in os.environ
        and "inline" not in os.environ.get("MPLBACKEND", "")
        # Of several processes on one terminal, the first draws.
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
    # Drawn by `advance`: a drawing thread would interfere when loaders fork.
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
    """Indent lines after the first: file names may contain line breaks that would look like separate messages."""
    return re.sub(r"\n(?=\S)", "\n  ", text)


def _to_stderr(text: str) -> None:
    if sys.stderr is not None:  # print() would use stdout
        with suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)


class _Unbroken:
    """Stream that drops what cannot be written."""

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
    """Flush both streams; otherwise Python would exit with its own exit code for unwritable output."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _lead_nowhere(stream)


def _lead_nowhere(stream: TextIO) -> None:
    """Redirect a broken stream to /dev/null; otherwise Python would retry the write at exit and complain."""
    with suppress(OSError, ValueError):  # no file descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    escaped = (_IN_ASCII.get(each) or each.encode("ascii", "backslashreplace").decode() for each in missing)
    return "".join(escaped), error.end
