"""Scores as printed by `camox eval`: three decimals, as in papers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.evaluation.published import published_for
from camoxpert_cli.evaluation.results import Evaluation
from camoxpert_cli.metrics.false_alarms import FalseAlarms, describe
from camoxpert_cli.metrics.measures import MEASURES

# The columns of the first table, and the metrics in each row of the second: at one threshold, mean and maximum.
_HEADINGS = {each.heading: each.name for each in MEASURES if each.heading}
_FAMILIES = {
    family: [each.name for each in MEASURES if each.family == family]
    for family in dict.fromkeys(each.family for each in MEASURES if each.family)
}


def to_text(evaluation: Evaluation) -> str:
    """Format the tables of each set: its scores, those of its slices, and published ones."""
    sets = evaluation.to_json()["sets"]
    return "\n\n".join(_set_to_text(name, sets[name], evaluation.title) for name in sets)


def _set_to_text(name: str, scores: Mapping[str, Any], title: str) -> str:
    without = scores.get("without_object")
    alarms = [] if without is None else [textwrap.fill(f"{describe(FalseAlarms.from_json(without))}.", 78)]
    if not scores["images"]:
        return "\n".join([f"{name}, {title}:", *alarms])
    rows = [_row(title, scores["images"], scores)]
    rows += [_row(f"  {label}", part["images"], part) for label, part in scores["slices"].items()]
    published = published_for(name)
    rows += [_row(row.system, None, row.scores) for row in published]
    lines = [console.table([name, "images", *_HEADINGS], rows), ""]
    families = [[family, *(f"{scores[measure]:.3f}" for measure in each)] for family, each in _FAMILIES.items()]
    lines.append(console.table(["", "adaptive (E, F) or at 0.5 (IoU, Dice)", "mean", "maximum"], families))
    lines += ["", *alarms] if alarms else []
    if published:
        lines += ["", "Published scores, as quoted in:"]
        for source in dict.fromkeys(row.source for row in published):
            systems = ", ".join(row.system for row in published if row.source == source)
            lines += ["  " + source, textwrap.fill(systems, 78, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(lines)


def _row(label: str, images: int | None, scores: Mapping[str, float]) -> list[str]:
    cells = [f"{scores[name]:.3f}" if name in scores else "" for name in _HEADINGS.values()]
    return [label, "" if images is None else str(images), *cells]
