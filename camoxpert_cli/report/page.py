"""A self-contained HTML file that can be shared, archived and opened offline."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from camoxpert_cli import console
from camoxpert_cli.atomic import write_text
from camoxpert_cli.report import charts
from camoxpert_cli.report.content import Report, ReportSet
from camoxpert_cli.report.curves import training_charts
from camoxpert_cli.report.images import strip
from camoxpert_cli.report.set_charts import Chart, set_charts
from camoxpert_cli.report.words import flattened, number

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, the text next to it, and its metrics."""

    name: str
    beside: str
    values: Mapping[str, float]
    own: bool = False


@dataclass(frozen=True)
class Table:
    """A table of rows, with a column for each metric that occurs in any of them."""

    title: str
    head: str
    beside: str
    rows: Sequence[Row]

    @property
    def measures(self) -> list[str]:
        return list(dict.fromkeys(measure for row in self.rows for measure in row.values))


def write_report(path: Path, report: Report) -> None:
    """Write the page atomically; an existing file stays unchanged on failure. Equal content gives identical bytes."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """Render the page as HTML text."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(label=report.label, number=number)
    overview = _overview(report.sets)
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        report=report,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        overview=overview,
        lower_is_better=[measure for measure in overview.measures if report.words(measure).lower_is_better],
        training=_training(report),
        sets=[_set(report, each, f"set-{position}") for position, each in enumerate(report.sets)],
        details=[
            (title, list(flattened(values)))
            for title, values in (("Configuration", report.configuration), ("Environment", report.environment))
            if values
        ],
    )


def _overview(sets: Sequence[ReportSet]) -> Table:
    return Table("Scores", "Dataset", "Images", [Row(each.name, f"{each.images}", each.means) for each in sets])


def _training(report: Report) -> list[Chart]:
    return [
        Chart(chart.title, charts.svg(chart.draw, f"training-{position}", chart.description), "")
        for position, chart in enumerate(training_charts(report.history, report.measures))
    ]


def _set(report: Report, each: ReportSet, name: str) -> dict[str, object]:
    """The template's data for one dataset."""
    own = Row("this network", console.counted(each.images, "image"), each.means, own=True)
    published = [Row(*row) for row in report.published.get(each.name, ())]
    parts = [Row(title, f"{images}", means) for title, images, means in each.slices]
    tables = []
    if published:
        tables.append(Table("Comparison with published results", "System", "Source", [own, *published]))
    if parts:
        whole = Row("all images", f"{each.images}", each.means, own=True)
        tables.append(Table("Subsets", "Subset", "Images", [whole, *parts]))
    return {
        "id": name,
        "name": each.name,
        "tables": tables,
        "charts": set_charts(each, name, report.label),
        "shown": [(image, strip(image)) for image in each.shown],
    }
