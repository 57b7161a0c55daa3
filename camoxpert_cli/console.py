"""The only place that prints. Results go to stdout, everything else to stderr.

On a terminal there are live progress bars; into a pipe, a file or a notebook cell goes one plain line now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

# Seconds between two progress lines where there is no terminal.
PLAIN_INTERVAL = 20.0

Advance = Callable[[int, str], None]


def say(text: str = "") -> None:
    """A line about what is going on."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    say(f"Warning: {text}")


def fail(message: str, hint: str, details: str = "") -> None:
    """Why the program ends, and what to type next."""
    say(f"Error: {message}")
    if details:
        say(details)
    if hint:
        say(f"Try:   {hint}")


def result(text: str) -> None:
    """A line of what the user asked for."""
    print(text, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces: the first to the left, the others to the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Yields a function that takes how many more are done and a few words on how it goes."""
    if sys.stderr.isatty():
        with _bar(title, total, done) as advance:
            yield advance
    else:
        yield _plain_lines(title, total, done)


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=total, completed=done, note="")
        yield lambda count, note: bars.update(task, advance=count, note=note)


def _plain_lines(title: str, total: int, done: int) -> Advance:
    last_line = time.monotonic()

    def advance(count: int, note: str) -> None:
        nonlocal done, last_line
        done += count
        if time.monotonic() - last_line >= PLAIN_INTERVAL and done < total:
            last_line = time.monotonic()
            say(f"{title}  {done}/{total}  {note}".rstrip())

    return advance
