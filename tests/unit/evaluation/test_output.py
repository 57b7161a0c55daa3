from __future__ import annotations

import csv
import errno
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camoxpert_cli.errors import UsageError
from camoxpert_cli.evaluation.output import per_image_csv, refuse_overwriting, write_scores
from camoxpert_cli.evaluation.results import Evaluation
from camoxpert_cli.metrics.measures import MEASURES
from tests.helpers.example_evaluation import example_evaluation
from tests.helpers.places import PACKAGE

COLUMNS = [
    "s_measure",
    "e_adaptive",
    "e_mean",
    "e_max",
    "f_adaptive",
    "f_mean",
    "f_max",
    "weighted_f",
    "mae",
    "iou",
    "dice",
]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return example_evaluation()


def test_csv(evaluation: Evaluation) -> None:
    """A line an image under the documented columns, with numbers that read back to the last bit."""
    lines = per_image_csv(evaluation.sets).splitlines()
    rows = list(csv.DictReader(lines))

    assert lines[0] == ",".join(["dataset", "name", *COLUMNS])
    assert [(row["dataset"], row["name"]) for row in rows] == [
        (each.name, name) for each in evaluation.sets for name in each.names
    ]
    for row, scores in zip(rows, [score for each in evaluation.sets for score in each.scores], strict=True):
        assert [float(row[name]) for name in COLUMNS] == [getattr(scores, name) for name in COLUMNS]


def test_results(evaluation: Evaluation, tmp_path: Path) -> None:
    """results.json: how it was made, then each set's means and slices; measures of a slice are means over it."""
    write_scores(tmp_path, evaluation)
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    of_set = content["sets"]["COD10K"]

    assert content["checkpoint"] == "best.pth"
    assert list(of_set) == ["images", *(each.name for each in MEASURES), "slices"]
    assert of_set["images"] == 3
    assert of_set["mae"] == pytest.approx(np.mean([score.mae for score in evaluation.sets[0].scores]))
    assert set(of_set["slices"]) == {"Aquatic", "Flying", "area under 3%", "area 3% or more"}
    assert of_set["slices"]["Flying"]["images"] == 1
    assert of_set["slices"]["Flying"]["s_measure"] == evaluation.sets[0].scores[2].s_measure
    assert (tmp_path / "per_image.csv").read_text(encoding="utf-8") == per_image_csv(evaluation.sets)


def write(out: Path, evaluation: Evaluation) -> None:
    """All three files, without the seconds that the drawing of a page takes."""
    template = (PACKAGE / "report" / "page.html").read_text(encoding="utf-8")
    evaluation = replace(evaluation, about={"checkpoint": evaluation.title, "stretch": True})
    out.mkdir(exist_ok=True)
    page = template.replace("{{ report.title }}", evaluation.title)
    write_scores(out, evaluation, {"report.html": page})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("there", ["results.json", "per_image.csv", "report.html"])
def test_scores_are_not_overwritten(evaluation: Evaluation, tmp_path: Path, there: str) -> None:
    """A folder that holds scores is refused, and taken where overwriting is meant."""
    write(tmp_path / "all", evaluation)
    (tmp_path / "out").mkdir()
    (tmp_path / "all" / there).rename(tmp_path / "out" / there)
    before = files(tmp_path / "out")
    with pytest.raises(UsageError, match=there) as refusal:
        refuse_overwriting(tmp_path / "out", overwrite=False)
    refuse_overwriting(tmp_path / "out", overwrite=True)

    assert "--overwrite" in refusal.value.hint
    assert files(tmp_path / "out") == before


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["results.json", "per_image.csv", "report.html"]),
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from(
            ['{"sets": {}}', "[1]", '"sets"', "[" * 9999, "dataset,name\n", "<!DOCTYPE html>\n<html lang='en'>"]
        ).map(str.encode),
        st.just(json.dumps({"validation": {}, "tests": {}, "baselines": {}, "seconds": 1.0}).encode()),
    ),
)
def test_files_of_others_are_never_overwritten(tmp_path: Path, there: str, content: bytes) -> None:
    """What eval did not write stays, byte for byte, whatever is asked for; a run's scores too."""
    (tmp_path / there).write_bytes(content)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"already contains|was not written by camox"):
            refuse_overwriting(tmp_path, overwrite)

    assert files(tmp_path) == {there: content}
    (tmp_path / there).unlink()


@pytest.mark.parametrize("name", ["last.pth", "metrics.jsonl"])
def test_a_runs_folder_is_no_place(tmp_path: Path, name: str) -> None:
    """A run writes files of the same names at its end, and takes those it finds for its own."""
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match="is a run folder"):
        refuse_overwriting(tmp_path, overwrite=True)


@pytest.mark.parametrize("fails", ["per_image.csv", "report.html"])
def test_new_scores_never_stand_beside_old_ones(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A disk that is full after one of the files leaves all of the old ones, and one sentence."""
    write(tmp_path, evaluation)
    before = files(tmp_path)
    original = Path.write_text

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        if fails in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match=r"the scores cannot be written to .*: No space left on device"):
        write(tmp_path, replace(evaluation, title="another"))

    assert files(tmp_path) == before


@pytest.mark.parametrize("dies_before", range(4))
def test_killed_in_the_moment_of_replacing(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_before: int
) -> None:
    """Whenever a process dies there are old files or new ones, never some of both."""
    write(tmp_path, evaluation)
    before = files(tmp_path)
    original = Path.replace
    done: list[Path] = []

    def dying(path: Path, target: Path) -> Path:
        if len(done) == dies_before:
            raise KeyboardInterrupt
        done.append(target)
        return original(path, target)

    monkeypatch.setattr(Path, "replace", dying)
    with suppress(KeyboardInterrupt):
        write(tmp_path, replace(evaluation, title="another", sets=evaluation.sets[:1]))

    assert len(done) == min(dies_before, 3)
    assert not {name for name, content in files(tmp_path).items() if content == before.get(name)}


def test_names_that_are_no_text(evaluation: Evaluation, tmp_path: Path) -> None:
    """Names of images and sets may be any bytes: the files stay valid UTF-8, and JSON gives the name back."""
    odd = b"\xff\xe4".decode(errors="surrogateescape")
    first = replace(evaluation.sets[0], name=odd, names=[odd, *evaluation.sets[0].names[1:]])
    write(tmp_path, replace(evaluation, title=odd, sets=[first]))

    assert list(json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["sets"]) == [odd]
    (row, *_) = csv.DictReader((tmp_path / "per_image.csv").read_text(encoding="utf-8").splitlines())
    assert (row["dataset"], row["name"]) == (r"\udcff\udce4", r"\udcff\udce4")
    assert r"\udcff\udce4" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Below a file no folder can be."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be created"):
        refuse_overwriting(tmp_path / "file" / "out", overwrite=False)
