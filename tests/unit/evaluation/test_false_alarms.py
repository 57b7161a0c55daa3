"""Images without an object in the results of an evaluation: apart from the means, with false alarms of their own."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camoxpert_cli.commands.score_tables import to_text
from camoxpert_cli.evaluation.output import Destination, finished_results, per_image_csv, write_scores
from camoxpert_cli.evaluation.report import report_of
from camoxpert_cli.evaluation.results import Evaluation, ScoredSet
from camoxpert_cli.metrics.image_scores import ImageScores, score_image
from tests.helpers.example_evaluation import example_evaluation

SIZE = (40, 50)


def without_object(predicted: int) -> ImageScores:
    """Scores of an empty mask of which so many pixels are predicted."""
    grey = np.full(SIZE, 90, np.uint8)
    grey.flat[:predicted] = 130
    return score_image(grey, np.zeros(SIZE, np.bool_))


NEGATIVES = [without_object(0), without_object(500)]


def scored_sets(*, apart: bool) -> list[ScoredSet]:
    """A set with two images without an object among others, one with none, and one with no others."""
    first, second = example_evaluation().sets
    names = ["n1", *first.names, "n2"]
    scores = [NEGATIVES[0], *first.scores, NEGATIVES[1]]
    return [
        replace(first, names=names, scores=scores, apart=apart),
        replace(second, apart=apart),
        ScoredSet("sea", ["n1", "n2"], NEGATIVES, apart),
    ]


def evaluation(*, apart: bool = True) -> Evaluation:
    empty = "apart" if apart else "reference"
    about = {"stretch": True, "empty_masks": empty}
    return replace(example_evaluation(), about=about, sets=scored_sets(apart=apart))


def test_means_are_of_images_with_an_object() -> None:
    """Means, slices and the number of images are those of the set without the others; false alarms stand beside."""
    whole = example_evaluation().sets[0].to_json()
    first, second, only = (each.to_json() for each in scored_sets(apart=True))
    alarms = {"images": 2, "false_alarms": 0.5, "predicted_area": 0.125}

    assert first == {**whole, "without_object": alarms}
    assert second == example_evaluation().sets[1].to_json()
    assert only == {"images": 0, "slices": {}, "without_object": alarms}


def test_all_images_count_on_request() -> None:
    """By the rules of PySODMetrics or the exact ones, means are of all images, as before, and false alarms are told."""
    first, second, only = scored_sets(apart=False)

    assert (first.to_json()["images"], only.to_json()["images"]) == (5, 2)
    assert first.means.iou == pytest.approx(sum(each.iou for each in first.scores) / 5)
    assert only.means.iou == 0
    assert first.to_json()["without_object"] == only.to_json()["without_object"]
    assert "without_object" not in second.to_json()


def test_csv_with_negatives() -> None:
    """Their lines have no metrics, which do not count, but the predicted area in a column of its own."""
    rows = list(csv.DictReader(per_image_csv(evaluation().sets).splitlines()))

    assert [row["predicted_area"] for row in rows] == ["0.0", "", "", "", "0.25", "", "0.0", "0.25"]
    assert [row["iou"] == "" for row in rows] == [row["predicted_area"] != "" for row in rows]
    assert "predicted_area" not in per_image_csv(evaluation().sets[1:2])
    assert all(row["iou"] for row in csv.DictReader(per_image_csv(evaluation(apart=False).sets).splitlines()))


def test_tables_with_negatives() -> None:
    """A sentence below the tables of a set, and instead of them where no image has an object; 80 columns at most."""
    text = to_text(evaluation())
    said = " ".join(text.split())

    assert said.count("2 images without an object: false alarms in 50.0%, with 12.50% of all pixels") == 2
    assert text.splitlines()[-3].startswith("sea, best.pth:")
    assert max(map(len, text.splitlines())) <= 80
    assert "without an object" not in to_text(example_evaluation())


def test_report_with_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows images with an object, and tells false alarms in its notes."""
    monkeypatch.setattr("camoxpert_cli.evaluation.report.environment", dict)
    asked: list[tuple[str, int]] = []

    def show(name: str, index: int) -> Any:
        asked.append((name, index))
        return None, np.zeros(SIZE, np.bool_), np.zeros(SIZE, np.uint8)

    report = report_of(replace(evaluation(), show=show))

    assert [(each.name, each.images) for each in report.sets] == [("COD10K", 3), ("mine", 1)]
    assert sorted(asked) == [("COD10K", 1), ("COD10K", 2), ("COD10K", 3), ("mine", 0)]
    assert [note.split(":")[0] for note in report.notes] == ["COD10K", "sea"]
    assert report.sets[0].background.sum() + report.sets[0].foreground.sum() == 3 * SIZE[0] * SIZE[1]


def test_results_with_negatives_are_complete(tmp_path: Path) -> None:
    """A finished evaluation is recognized, also of a set without objects; one that lacks false alarms is not."""
    made = evaluation()
    write_scores(tmp_path, made, {"report.html": ""})
    destination = Destination(tmp_path, keep=True)
    found = finished_results(destination, made.about)
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    del content["sets"]["sea"]["without_object"]
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")

    assert found == made.to_json()
    assert finished_results(destination, made.about) is None
