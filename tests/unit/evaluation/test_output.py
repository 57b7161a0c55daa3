from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from camoxpert_cli.errors import UsageError
from camoxpert_cli.evaluation.output import per_image_csv, refuse_overwriting, write_scores
from camoxpert_cli.evaluation.results import Evaluation
from camoxpert_cli.metrics.measures import MEASURES
from tests.helpers.example_evaluation import example_evaluation

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
    assert list(of_set) == ["pictures", *(each.name for each in MEASURES), "slices"]
    assert of_set["pictures"] == 3
    assert of_set["mae"] == pytest.approx(np.mean([score.mae for score in evaluation.sets[0].scores]))
    assert set(of_set["slices"]) == {"Aquatic", "Flying", "area under 3%", "area from 3%"}
    assert of_set["slices"]["Flying"]["pictures"] == 1
    assert of_set["slices"]["Flying"]["s_measure"] == evaluation.sets[0].scores[2].s_measure
    assert (tmp_path / "per_image.csv").read_text(encoding="utf-8") == per_image_csv(evaluation.sets)


@pytest.mark.parametrize("there", ["results.json", "per_image.csv", "report.html"])
def test_scores_are_not_overwritten(tmp_path: Path, there: str) -> None:
    """A folder that holds scores is refused, and taken where overwriting is meant."""
    (tmp_path / there).write_text("precious", encoding="utf-8")
    with pytest.raises(UsageError, match=there) as refusal:
        refuse_overwriting(tmp_path, overwrite=False)
    refuse_overwriting(tmp_path, overwrite=True)

    assert "--overwrite" in refusal.value.hint
    assert (tmp_path / there).read_text(encoding="utf-8") == "precious"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Below a file no folder can be."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made a folder"):
        refuse_overwriting(tmp_path / "file" / "out", overwrite=False)
