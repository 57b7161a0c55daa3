"""Charts in a common style: as SVG in the page, with colors that follow light or dark mode, or as PNG."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from camoxpert_cli.atomic import replacing

Draw = Callable[[Axes], None]

INK, FAINT = "#1b1b19", "#a6a49c"
# Okabe and Ito's colors, distinguishable with any color vision; the dashes distinguish lines without color.
LINES = ("#0072b2", "#d55e00", "#00795a", "#a2497c")
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
# The page defines their values in light and in dark mode.
_VARIABLES = {INK: "--ink", FAINT: "--faint", **{colour: f"--line-{n}" for n, colour in enumerate(LINES)}}

_WIDTH, _HEIGHT = 360, 250
_POINTS = 72
_STYLE = {
    # Text stays text, in the page's font; identifiers are reproducible.
    "svg.fonttype": "none",
    "svg.hashsalt": "camox",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def svg(draw: Draw, name: str, description: str) -> str:
    """Render one chart of 360 by 250 pixels as an element of the page, in which `name` is unique."""
    with _style():
        figure = Figure(figsize=(_WIDTH / _POINTS, _HEIGHT / _POINTS), layout="constrained")
        axes = figure.add_subplot()
        # Transparent, because the page has a light and a dark mode.
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        draw(axes)
        _legend(axes, figure, loc="outside lower center", ncols=len(LINES))
        file = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=metadata)
    return _embedded(file.getvalue(), name, description)


def write_png(path: Path, draws: Sequence[tuple[str, Draw]]) -> None:
    """Write titled charts, two per row, to one PNG file that replaces `path` when it is complete."""
    with _style():
        rows = -(-len(draws) // 2)
        figure = Figure(figsize=(2 * _WIDTH / _POINTS, rows * 1.1 * _HEIGHT / _POINTS), dpi=144, layout="constrained")
        for position, (title, draw) in enumerate(draws):
            axes = figure.add_subplot(rows, 2, position + 1)
            axes.set_title(title, loc="left")
            draw(axes)
            _legend(axes, axes, loc="best")
        with replacing(path) as temporary, temporary.open("wb") as file:
            figure.savefig(file, format="png", metadata={"Software": None})


def line(axes: Axes, position: int, x: Any, y: Any, name: str) -> None:
    """Draw a line with the color and dashes of its position; a single point is drawn as a dot."""
    marker = "o" if len(x) == 1 else None
    axes.plot(x, y, label=name, color=LINES[position], linestyle=DASHES[position], marker=marker)


def from_0_to_1(axes: Axes, x: str, y: str) -> None:
    """Set the range of both axes to 0..1 and label them."""
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x, ylabel=y)


def _style() -> AbstractContextManager[None]:
    """The style of the charts, independent of the user's matplotlibrc."""
    return matplotlib.style.context(["default", _STYLE])


def _legend(axes: Axes, where: Axes | Figure, **place: Any) -> None:
    """Add a legend if there is more than one line."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        where.legend(handles, labels, **place)


def _embedded(document: str, name: str, description: str) -> str:
    """Convert an SVG document to an element of an HTML page that contains several."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<svg[^>]*>", "", body, count=1)
    # It would apply to the whole page; the page's style sheet has the same rules for charts.
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"\bid=\"", f'id="{name}-', body).replace("url(#", f"url(#{name}-")
    body = body.replace('xlink:href="#', f'href="#{name}-')
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(description)}">'
    return head + body
