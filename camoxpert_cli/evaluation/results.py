"""An evaluation: the scores of some sets, how they came about, and what they look like."""

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
from camoxpert_cli.metrics.image_scores import ImageScores
from camoxpert_cli.metrics.score_set import SetScores, mean_scores

# The image uint8 (H, W, 3) where it is at hand, its mask bool (H, W) and its map uint8 (H, W).
Shown: TypeAlias = tuple[NDArray[np.uint8] | None, NDArray[np.bool_], NDArray[np.uint8]]


@dataclass(frozen=True)
class Evaluation:
    """`title` says whose scores they are, `about` how they were made; `show(set, index)` gives an image to look at."""

    title: str
    about: Mapping[str, Any]
    sets: Sequence[ScoredSet]
    show: Callable[[str, int], Shown]

    def require_saved(self) -> None:
        """Raise UsageError where a map could not be written."""
        for each in self.sets:
            if each.unsaved is not None:
                raise each.unsaved

    def to_json(self) -> dict[str, Any]:
        """What results.json holds."""
        return {**self.about, "sets": {each.name: each.to_json() for each in self.sets}}


@dataclass(frozen=True)
class ScoredSet:
    """`names[i]` is the image that has `scores[i]`; at least one. `unsaved` is why a map of it could not be written."""

    name: str
    names: Sequence[str]
    scores: Sequence[ImageScores]
    unsaved: UsageError | None = None

    @cached_property
    def means(self) -> SetScores:
        return mean_scores(self.scores)

    @cached_property
    def slices(self) -> dict[str, tuple[int, SetScores]]:
        """Number of images and means of each slice."""
        found = slices(self.names, [score.area for score in self.scores])
        return {
            label: (len(indices), mean_scores([self.scores[index] for index in indices]))
            for label, indices in found.items()
        }

    def to_json(self) -> dict[str, Any]:
        """What results.json holds of it; `e_max` and the like are the maximum of the mean curve."""
        return {
            "pictures": len(self.scores),
            **self.means.measures,
            "slices": {label: {"pictures": count, **means.measures} for label, (count, means) in self.slices.items()},
        }


def slices(names: Sequence[str], areas: Sequence[float]) -> dict[str, list[int]]:
    """Indices of the images of each slice: COD10K's super-classes by name, then small and other objects.

    `areas` are the shares of the masks, 0..1. A slice that would be empty or the whole set is left out.
    """
    found: dict[str, list[int]] = {}
    for index, kind in enumerate(map(super_class, names)):
        if kind is not None:
            found.setdefault(kind, []).append(index)
    found = dict(sorted(found.items()))
    found[f"area under {SMALL_OBJECT:.0%}"] = [index for index, area in enumerate(areas) if area < SMALL_OBJECT]
    found[f"area from {SMALL_OBJECT:.0%}"] = [index for index, area in enumerate(areas) if area >= SMALL_OBJECT]
    return {label: indices for label, indices in found.items() if 0 < len(indices) < len(names)}
