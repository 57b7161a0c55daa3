"""Markdown on a terminal: a page of `camox guide` as colored text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, TableElement
from rich.segment import Segment
from rich.table import Table
from rich.theme import Theme

if TYPE_CHECKING:
    from markdown_it.token import Token  # rich's own parser

# Longer lines are tiring to read.
_WIDEST = 100
_COLUMN_GAP = 2
# Readable on a dark and on a light background.
_THEME = Theme(
    {
        "markdown.h1": "bold",
        "markdown.h2": "bold underline",
        "markdown.h3": "bold",
        "markdown.code": "bold cyan",
        "markdown.code_block": "cyan",
        "markdown.link_url": "none",
        "markdown.link": "none",
        "markdown.item.bullet": "none",
        "markdown.item.number": "none",
        "markdown.table.header": "bold",
        "markdown.table.border": "dim",
    }
)
_OTHER_PAGE = re.compile(r"([\w-]+)\.md(?:#.*)?")


def show(text: str, stream: TextIO, width: int) -> None:
    """Write the Markdown `text` to `stream`, a terminal of `width` columns. Raises OSError if the stream does."""
    console = Console(file=stream, width=min(width, _WIDEST), theme=_THEME, highlight=False)
    console.print(_Page(text, hyperlinks=False), crop=False)


class _Heading(Heading):
    """To the left, without a frame."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _CodeBlock(CodeBlock):
    """Indented, without a background. No line is broken or filled with spaces, so that a copy of it can be run."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        style = console.get_style(self.style_name)
        for line in str(self.text).rstrip().splitlines():
            yield Segment(f"  {line}".rstrip(), style)
            yield Segment.line()


class _Table(TableElement):
    """Without side borders; blank lines separate the rows if any cell is wrapped."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        header = [] if self.header is None or self.header.row is None else self.header.row.cells
        rows = [] if self.body is None else [row.cells for row in self.body.rows]
        widths = [max(cell_len(cell.content.plain) for cell in column) for column in zip(header, *rows, strict=True)]
        wraps = sum(widths) + _COLUMN_GAP * (len(widths) - 1) > options.max_width
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, _COLUMN_GAP, 0, 0),
            leading=int(wraps),
            border_style="markdown.table.border",
            header_style="markdown.table.header",
        )
        for cell in header:
            table.add_column(cell.content)
        for cells in rows:
            table.add_row(*(cell.content for cell in cells))
        yield table


class _Page(Markdown):
    elements = Markdown.elements | {
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "table_open": _Table,
    }

    def __init__(self, markup: str, **options: Any) -> None:
        super().__init__(markup, **options)
        for token in self.parsed:
            if token.children:
                token.children = list(_without_files(token.children))


def _without_files(tokens: Iterable[Token]) -> Iterable[Token]:
    """Replace links to other pages by the command that shows them; of links within the page only the text stays."""
    target: str | None = None
    for token in tokens:
        if token.type == "link_open" and "://" not in (address := str(token.attrs["href"])):
            target = address
        elif token.type == "link_close" and target is not None:
            if page := _OTHER_PAGE.fullmatch(target):
                yield token.copy(type="text", tag="", nesting=0, content=" (")
                yield token.copy(type="code_inline", tag="code", nesting=0, content=f"camox guide {page[1]}")
                yield token.copy(type="text", tag="", nesting=0, content=")")
            elif not target.startswith("#"):
                path = target.replace("../", "").partition("#")[0]
                yield token.copy(type="text", tag="", nesting=0, content=f" ({path})")
            target = None
        else:
            yield token
