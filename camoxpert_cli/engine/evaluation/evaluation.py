"""An evaluation: the scores of some sets, how they came about, and what they look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.engine.evaluation.scored_set import ScoredSet

# The picture uint8 (H, W, 3) where it is at hand, its mask bool (H, W) and its map uint8 (H, W).
Shown: TypeAlias = tuple[NDArray[np.uint8] | None, NDArray[np.bool_], NDArray[np.uint8]]


@dataclass(frozen=True)
class Evaluation:
    """`title` says whose scores they are, `about` how they were made; `show(set, index)` gives a picture to look at."""

    title: str
    about: Mapping[str, Any]
    sets: Sequence[ScoredSet]
    show: Callable[[str, int], Shown]

    def to_json(self) -> dict[str, Any]:
        """What results.json holds."""
        return {**self.about, "sets": {each.name: each.to_json() for each in self.sets}}
