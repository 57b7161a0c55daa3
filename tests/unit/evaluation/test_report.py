from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camoxpert_cli.evaluation.report import places, report_of
from camoxpert_cli.evaluation.results import Shown
from tests.helpers.example_evaluation import example_evaluation


def test_places() -> None:
    """The four worst, the two in the middle and the three best, from the worst on and from the best on."""
    scores = [0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 1.0, 0.0, 0.55]

    assert places(scores) == [
        *(("worst", index) for index in (10, 1, 5, 3)),
        *(("median", index) for index in (0, 11)),
        *(("best", index) for index in (9, 2, 6)),
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_no_image_is_shown_twice(count: int) -> None:
    """Of a few images each is shown once, the worst as such."""
    found = places([0.5] * count)

    assert sorted(index for _, index in found) == list(range(count))
    assert found[0] == ("worst", 0)


def test_report_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each set with the grey levels of all its images, its slices, and its images beside their own scores."""
    size = (40, 50)

    def show(name: str, index: int) -> Shown:
        image = np.full((*size, 3), index, np.uint8) if name == "COD10K" else None
        return image, np.full(size, index == 1), np.full(size, 100 + index, np.uint8)

    # Asking the machine starts a process.
    monkeypatch.setattr("camoxpert_cli.evaluation.report.environment", dict)
    evaluation = replace(example_evaluation(), show=show)
    report = report_of(evaluation, history=[{"epoch": 1}])
    first, second = report.sets

    assert (report.title, report.configuration, report.history) == ("best.pth", evaluation.about, [{"epoch": 1}])
    assert [(each.name, each.images) for each in report.sets] == [("COD10K", 3), ("mine", 1)]
    assert (len(report.published["COD10K"]) > 0, report.published["mine"]) == (True, [])
    areas = [score.area * size[0] * size[1] for score in evaluation.sets[0].scores]
    assert first.foreground.sum() == pytest.approx(sum(areas))
    assert first.background.sum() == pytest.approx(3 * size[0] * size[1] - sum(areas))
    assert {label: count for label, count, _ in first.slices} == {
        label: count for label, (count, _) in evaluation.sets[0].slices.items()
    }
    for shown in first.shown:
        index = list(evaluation.sets[0].names).index(shown.name)
        assert (shown.image == index).all()
        assert (shown.prediction == 100 + index).all()
        assert shown.mask.all() == (index == 1)
        assert shown.scores["iou"] == evaluation.sets[0].scores[index].iou
    assert len(first.shown) == 3
    # Without an image its map is shown.
    assert (second.shown[0].image == 100).all()
    assert second.shown[0].image.shape == (*size, 3)
