"""The scores of one data set: of each picture, of all, and of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from camoxpert_cli.engine.evaluation.slices import slices
from camoxpert_cli.metrics.picture_scores import Measures, PictureScores
from camoxpert_cli.metrics.score_set import SetScores, mean_scores

# Columns of per_image.csv, and the order in which measures are shown; the names of the scores' fields.
MEASURES = (
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
)
# What papers do not print, but what the same histograms give.
FURTHER = ("iou_mean", "iou_max", "dice_mean", "dice_max", "ber")


@dataclass(frozen=True)
class ScoredSet:
    """`names[i]` is the picture that has `scores[i]`; at least one."""

    name: str
    names: Sequence[str]
    scores: Sequence[PictureScores]

    @cached_property
    def means(self) -> SetScores:
        return mean_scores(self.scores)

    @cached_property
    def slices(self) -> dict[str, tuple[int, SetScores]]:
        """Number of pictures and means of each slice."""
        found = slices(self.names, [score.area for score in self.scores])
        return {
            label: (len(indices), mean_scores([self.scores[index] for index in indices]))
            for label, indices in found.items()
        }

    def to_json(self) -> dict[str, Any]:
        """What results.json holds of it; `e_max` and the like are the maximum of the mean curve."""
        return {
            "pictures": len(self.scores),
            **measures(self.means),
            "slices": {label: {"pictures": count, **measures(means)} for label, (count, means) in self.slices.items()},
        }


def measures(scores: Measures, names: Sequence[str] = (*MEASURES, *FURTHER)) -> dict[str, float]:
    """The measures by name, in the order of `names`."""
    return {name: getattr(scores, name) for name in names}
