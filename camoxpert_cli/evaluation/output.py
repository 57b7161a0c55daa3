"""Writes scores to files."""

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
# Occurs at the beginning of camox reports and hardly any other page: see report/page.html.
_PAGE = b"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"


def files_in(out: Path) -> list[Path]:
    """Return the files that `write_evaluation` writes."""
    return [out / name for name in (RESULTS, PER_IMAGE, REPORT)]


def refuse_overwriting(out: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Create the folder `out` and remove temporary files of killed processes. Raises UsageError if that fails.

    With `overwrite`, files of an earlier evaluation may be replaced; other files and any of `inputs` never are.
    """
    run = RunFolder(out)
    if run.holds_checkpoint or run.metrics.exists():
        raise UsageError(f"{out} is a run folder, whose score files have the same names", _HINT)
    files = files_in(out)
    check_targets(
        files,
        _HINT,
        is_ours=_is_ours,
        overwrite=overwrite,
        inputs=inputs,
        taken=lambda path: f"{out} already contains {path.name}",
    )
    make_out_folder(out, "--out")
    atomic.sweep(*files)


def write_evaluation(out: Path, evaluation: Evaluation) -> None:
    """Write results.json, per_image.csv and report.html to the folder `out`. Raises UsageError."""
    # Importing the plotting code takes a second.
    from camoxpert_cli.evaluation.report import report_of
    from camoxpert_cli.report.page import render

    write_scores(out, evaluation, {REPORT: render(report_of(evaluation))})


def write_scores(out: Path, evaluation: Evaluation, beside: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write results.json, per_image.csv and the texts in `beside`, by name, to the folder `out`, all or none.

    Raises UsageError if they cannot be written; existing files are then unchanged.
    """
    texts = {RESULTS: json.dumps(evaluation.to_json(), indent=2) + "\n", PER_IMAGE: per_image_csv(evaluation.sets)}
    try:
        atomic.write_texts({out / name: text for name, text in {**texts, **beside}.items()})
    except OSError as error:
        raise UsageError(f"the scores cannot be written to {out}: {error.strerror}", _HINT) from error


def _is_ours(path: Path) -> bool:
    """Whether `write_evaluation` wrote this file, which has one of its names."""
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
    """Return one line per image: dataset, name and metrics at full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for each in sets:
        for name, scores in zip(each.names, each.scores, strict=True):
            writer.writerow([each.name, name, *(repr(scores.measures[measure]) for measure in COLUMNS)])
    return text.getvalue()
