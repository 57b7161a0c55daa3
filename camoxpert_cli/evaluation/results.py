"""The result of an evaluation: the scores of some sets, how they were computed, and images to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.data.cod10k import super_class
from camoxpert_cli.data.reading import SMALL_OBJECT
from camoxpert_cli.errors import UsageError
from camoxpert_cli.metrics.false_alarms import FalseAlarms, area_of, false_alarms
from camoxpert_cli.metrics.image_scores import ImageScores
from camoxpert_cli.metrics.score_set import SetScores, mean_scores

# The image uint8 (H, W, 3) if available, its mask bool (H, W) and its prediction uint8 (H, W).
Shown: TypeAlias = tuple[NDArray[np.uint8] | None, NDArray[np.bool_], NDArray[np.uint8]]


@dataclass(frozen=True)
class Evaluation:
    """Scores of some sets; `title` names what was scored, `about` says how, `show(set, index)` returns an image.

    If an earlier command has scored and written the same, `finished` is the content of its results.json, and `sets` is
    empty.
    """

    title: str
    about: Mapping[str, Any]
    sets: Sequence[ScoredSet]
    show: Callable[[str, int], Shown]
    finished: Mapping[str, Any] | None = None

    def require_saved(self) -> None:
        """Raise UsageError if a prediction could not be written."""
        for each in self.sets:
            if each.unsaved is not None:
                raise each.unsaved

    def to_json(self) -> dict[str, Any]:
        """Return the content of results.json."""
        if self.finished is not None:
            return dict(self.finished)
        return {**self.about, "sets": {each.name: each.to_json() for each in self.sets}}


@dataclass(frozen=True)
class ScoredSet:
    """Scores of one set: image `names[i]` has `scores[i]`, at least one. `unsaved`: why a prediction is missing.

    With `apart`, images without an object count only as false alarms, otherwise in the means as well.
    """

    name: str
    names: Sequence[str]
    scores: Sequence[ImageScores]
    apart: bool = True
    unsaved: UsageError | None = None

    @cached_property
    def counted(self) -> list[int]:
        """The indices of the images whose scores the means are of; none if `apart` and no image has an object."""
        return [index for index, scores in enumerate(self.scores) if not self.apart or scores.area > 0]

    @cached_property
    def means(self) -> SetScores:
        """The means over the images `counted`, at least one."""
        return mean_scores([self.scores[index] for index in self.counted])

    @cached_property
    def slices(self) -> dict[str, tuple[int, SetScores]]:
        """Number of images and means of each slice of the images `counted`, by label."""
        scores = [self.scores[index] for index in self.counted]
        found = slices([self.names[index] for index in self.counted], [each.area for each in scores])
        return {
            label: (len(indices), mean_scores([scores[index] for index in indices])) for label, indices in found.items()
        }

    @cached_property
    def false_alarms(self) -> FalseAlarms | None:
        """What is predicted in the images without an object; None if there are none."""
        areas = [area_of(scores.background) for scores in self.scores if scores.area == 0]
        return false_alarms(areas) if areas else None

    def to_json(self) -> dict[str, Any]:
        """Return the set's part of results.json; `e_max` and similar metrics are the maximum of the mean curve."""
        alarms = self.false_alarms
        return {
            "images": len(self.counted),
            **(self.means.measures if self.counted else {}),
            "slices": {label: {"images": count, **means.measures} for label, (count, means) in self.slices.items()},
            **({} if alarms is None else {"without_object": alarms.to_json()}),
        }


def slices(names: Sequence[str], areas: Sequence[float]) -> dict[str, list[int]]:
    """Return the image indices of each slice: COD10K's superclasses by name, then small and other objects.

    `areas` are the objects' shares of the images, 0..1. A slice that is empty or equal to the whole set is left out.
    """
    found: dict[str, list[int]] = {}
    for index, kind in enumerate(map(super_class, names)):
        if kind is not None:
            found.setdefault(kind, []).append(index)
    found = dict(sorted(found.items()))
    found[f"area under {SMALL_OBJECT:.0%}"] = [index for index, area in enumerate(areas) if area < SMALL_OBJECT]
    found[f"area {SMALL_OBJECT:.0%} or more"] = [index for index, area in enumerate(areas) if area >= SMALL_OBJECT]
    return {label: indices for label, indices in found.items() if 0 < len(indices) < len(names)}
