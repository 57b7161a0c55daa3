"""Writes scores to files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from camoxpert_cli import atomic
from camoxpert_cli.errors import UsageError
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet
from camoxpert_cli.inference.out_folder import make_out_folder
from camoxpert_cli.inference.provenance import difference
from camoxpert_cli.metrics.false_alarms import area_of
from camoxpert_cli.metrics.measures import COLUMNS, MEASURES
from camoxpert_cli.run_folder import RunFolder
from camoxpert_cli.targets import check_targets

RESULTS, PER_IMAGE, REPORT = "results.json", "per_image.csv", "report.html"


_COLUMNS = ("dataset", "name", *COLUMNS)
_HINT = "choose another folder with --out"
# Occurs at the beginning of camox reports and hardly any other page: see report/page.html.
_PAGE = b"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
# Paths in results.json: what they contain counts.
_PATHS = ("checkpoint", "predictions")


@dataclass(frozen=True)
class Destination:
    """The folders for scores, `out`, and for predictions; None if they are not written.

    Files of an earlier evaluation are replaced with `overwrite`, and kept with `keep` if they are of this very one.
    """

    out: Path | None = None
    predictions: Path | None = None
    overwrite: bool = False
    keep: bool = False

    @property
    def writes(self) -> bool:
        return self.out is not None or self.predictions is not None

    @property
    def replaces(self) -> bool:
        """Whether files of an earlier evaluation may be there."""
        return self.overwrite or self.keep

    @property
    def files(self) -> list[Path]:
        """The files with scores."""
        return [] if self.out is None else files_in(self.out)


NOWHERE = Destination()


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


def finished_results(destination: Destination, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the content of results.json if all scores of the evaluation that `about` describes are there.

    None if they have to be computed. Raises UsageError if there are files of another evaluation, unless they may be
    replaced.
    """
    there = [path for path in destination.files if path.exists()]
    if destination.out is None or not destination.keep or not there:
        return None
    results = _read_results(destination.out / RESULTS)
    wanted = {name: value for name, value in about.items() if name not in _PATHS}
    made = {name: results[name] for name in wanted if name in results}
    if made == wanted:
        return results if len(there) == len(destination.files) and _are_scores(results["sets"]) else None
    if destination.overwrite:
        return None
    raise UsageError(
        f"{destination.out} already contains {there[0].name}, which {difference(made, wanted)}",
        f"{_HINT}, or add --overwrite to replace it",
    )


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
    return bool(_results_in(content))


def _read_results(path: Path) -> dict[str, Any]:
    """The content of a results.json, empty if there is none."""
    try:
        return _results_in(path.read_bytes())
    except OSError:
        return {}


def _results_in(content: bytes) -> dict[str, Any]:
    """The results of an evaluation, empty for any other content."""
    try:
        results = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return results if isinstance(results, dict) and {"sets", "stretch"} <= results.keys() else {}


def _are_scores(sets: Any) -> bool:
    """Whether `sets` has everything that tables show."""
    try:
        rows = [scores for each in sets.values() for scores in (each, *each["slices"].values()) if scores["images"]]
        numbers = [scores[name] for scores in rows for name in ("images", *(measure.name for measure in MEASURES))]
        alarms = [each["without_object"] for each in sets.values() if "without_object" in each or not each["images"]]
        numbers += [each[name] for each in alarms for name in ("images", "false_alarms", "predicted_area")]
    except (AttributeError, KeyError, TypeError):
        return False
    return all(isinstance(number, int | float) for number in numbers)


def per_image_csv(sets: Sequence[ScoredSet]) -> str:
    """Return one line per image: dataset, name and metrics at full precision, empty if the image does not count.

    If there are images without an object, their share of predicted pixels is in one more column.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    has_alarms = any(each.false_alarms is not None for each in sets)
    writer.writerow([*_COLUMNS, *(["predicted_area"] if has_alarms else [])])
    for each in sets:
        counted = {*each.counted}
        for index, (name, scores) in enumerate(zip(each.names, each.scores, strict=True)):
            row = [repr(scores.measures[measure]) if index in counted else "" for measure in COLUMNS]
            area = [] if not has_alarms else ["" if scores.area else repr(area_of(scores.background))]
            writer.writerow([each.name, name, *row, *area])
    return text.getvalue()
