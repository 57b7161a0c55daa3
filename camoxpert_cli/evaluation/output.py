"""Scores as files and as tables."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from camoxpert_cli import atomic, console
from camoxpert_cli.errors import UsageError
from camoxpert_cli.evaluation.published import published_for
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet
from camoxpert_cli.inference.out_folder import make_out_folder
from camoxpert_cli.metrics.measures import COLUMNS, MEASURES

RESULTS, PER_IMAGE, REPORT = "results.json", "per_image.csv", "report.html"
# The columns of the first table, and what stands in each line of the second: at one threshold, mean and maximum.
_HEADINGS = {each.heading: each.name for each in MEASURES if each.heading}
_FAMILIES: dict[str, list[str]] = {}
for _each in MEASURES:
    if _each.family:
        _FAMILIES.setdefault(_each.family, []).append(_each.name)


def refuse_overwriting(out: Path, overwrite: bool) -> None:
    """Make the folder. Raises UsageError where that is impossible, or where it holds scores already."""
    there = [name for name in (RESULTS, PER_IMAGE, REPORT) if (out / name).exists()]
    if there and not overwrite:
        raise UsageError(
            f"{out} holds {there[0]} already", "choose another folder with --out, or --overwrite where that is meant"
        )
    make_out_folder(out, "--out")


def write_evaluation(out: Path, evaluation: Evaluation) -> None:
    """results.json, per_image.csv and report.html in the folder `out`."""
    # Loads what draws charts, which takes a second.
    from camoxpert_cli.evaluation.report import write_evaluation_report

    write_scores(out, evaluation)
    write_evaluation_report(out / REPORT, evaluation)


def write_scores(out: Path, evaluation: Evaluation) -> None:
    """results.json and per_image.csv in the folder `out`."""
    atomic.write_text(out / RESULTS, json.dumps(evaluation.to_json(), indent=2) + "\n")
    atomic.write_text(out / PER_IMAGE, per_image_csv(evaluation.sets))


def per_image_csv(sets: Sequence[ScoredSet]) -> str:
    """A line a picture: data set, name and its measures in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "name", *COLUMNS])
    for each in sets:
        for name, scores in zip(each.names, each.scores, strict=True):
            writer.writerow([each.name, name, *(repr(scores.measures[measure]) for measure in COLUMNS)])
    return text.getvalue()


def to_text(evaluation: Evaluation) -> str:
    """Tables of each set: its scores, those of its slices, and those that others publish for it."""
    return "\n\n".join(_set_to_text(each, evaluation.title) for each in evaluation.sets)


def _set_to_text(each: ScoredSet, title: str) -> str:
    rows = [_row(title, len(each.scores), each.means.measures)]
    rows += [_row(f"  {label}", count, means.measures) for label, (count, means) in each.slices.items()]
    published = published_for(each.name)
    rows += [_row(row.system, None, row.scores) for row in published]
    lines = [console.table([each.name, "pictures", *_HEADINGS], rows), ""]
    families = [
        [family, *(f"{each.means.measures[name]:.3f}" for name in names)] for family, names in _FAMILIES.items()
    ]
    lines.append(console.table(["", "adaptive, at 0.5", "mean", "maximum"], families))
    if published:
        lines += ["", "Published scores as read in:"]
        for source in dict.fromkeys(row.source for row in published):
            systems = ", ".join(row.system for row in published if row.source == source)
            lines += ["  " + source, textwrap.fill(systems, 78, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(lines)


def _row(label: str, pictures: int | None, scores: Mapping[str, float]) -> list[str]:
    cells = [f"{scores[name]:.3f}" if name in scores else "" for name in _HEADINGS.values()]
    return [label, "" if pictures is None else str(pictures), *cells]
