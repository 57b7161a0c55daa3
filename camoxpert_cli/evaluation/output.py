"""Scores as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from camoxpert_cli import atomic
from camoxpert_cli.errors import UsageError
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet
from camoxpert_cli.inference.out_folder import make_out_folder
from camoxpert_cli.metrics.measures import COLUMNS

RESULTS, PER_IMAGE, REPORT = "results.json", "per_image.csv", "report.html"


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
    """A line an image: data set, name and its measures in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "name", *COLUMNS])
    for each in sets:
        for name, scores in zip(each.names, each.scores, strict=True):
            writer.writerow([each.name, name, *(repr(scores.measures[measure]) for measure in COLUMNS)])
    return text.getvalue()
