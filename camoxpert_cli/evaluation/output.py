"""Scores as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from camoxpert_cli import atomic
from camoxpert_cli.errors import UsageError
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet
from camoxpert_cli.inference.out_folder import make_out_folder
from camoxpert_cli.metrics.measures import COLUMNS
from camoxpert_cli.run_folder import RunFolder
from camoxpert_cli.targets import check_targets

RESULTS, PER_IMAGE, REPORT = "results.json", "per_image.csv", "report.html"


_COLUMNS = ("dataset", "name", *COLUMNS)
_HINT = "choose another folder with --out"
# What the pages have at their beginning, and hardly any other: see report/page.html.
_PAGE = b"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"


def files_in(out: Path) -> list[Path]:
    """What `write_evaluation` writes."""
    return [out / name for name in (RESULTS, PER_IMAGE, REPORT)]


def refuse_overwriting(out: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Make the folder `out`, and sweep up what killed processes left there. Raises UsageError where that is impossible.

    With `overwrite` those of an earlier evaluation may be there; other files stay, and so does what is one of `inputs`.
    """
    run = RunFolder(out)
    if run.holds_checkpoint or run.metrics.exists():
        raise UsageError(f"{out} is the folder of a run, whose scores have the same names", _HINT)
    files = files_in(out)
    check_targets(
        files,
        _HINT,
        is_ours=_is_ours,
        overwrite=overwrite,
        inputs=inputs,
        taken=lambda path: f"{out} holds {path.name} already",
    )
    make_out_folder(out, "--out")
    atomic.sweep(*files)


def write_evaluation(out: Path, evaluation: Evaluation) -> None:
    """results.json, per_image.csv and report.html in the folder `out`. Raises UsageError."""
    # Loads what draws charts, which takes a second.
    from camoxpert_cli.evaluation.report import report_of
    from camoxpert_cli.report.page import render

    write_scores(out, evaluation, {REPORT: render(report_of(evaluation))})


def write_scores(out: Path, evaluation: Evaluation, beside: Mapping[str, str] = MappingProxyType({})) -> None:
    """results.json and per_image.csv in the folder `out`, with the texts `beside` them by name, all together.

    Raises UsageError where they cannot be written; what was there before is there then.
    """
    texts = {RESULTS: json.dumps(evaluation.to_json(), indent=2) + "\n", PER_IMAGE: per_image_csv(evaluation.sets)}
    try:
        atomic.write_texts({out / name: text for name, text in {**texts, **beside}.items()})
    except OSError as error:
        raise UsageError(f"the scores cannot be written to {out}: {error.strerror}", _HINT) from error


def _is_ours(path: Path) -> bool:
    """Whether `write_evaluation` wrote the file, which has one of its names."""
    content = path.read_bytes()
    if path.name == PER_IMAGE:
        return content.startswith(",".join(_COLUMNS[:3]).encode())
    if path.name == REPORT:
        return _PAGE in content[:1000]
    try:
        results = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(results, dict) and {"sets", "stretch"} <= results.keys()


def per_image_csv(sets: Sequence[ScoredSet]) -> str:
    """A line an image: data set, name and its measures in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for each in sets:
        for name, scores in zip(each.names, each.scores, strict=True):
            writer.writerow([each.name, name, *(repr(scores.measures[measure]) for measure in COLUMNS)])
    return text.getvalue()
