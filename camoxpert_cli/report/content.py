"""What a report shows, as plain data: whoever has scores and images fills this in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 256


@dataclass(frozen=True)
class MeasureWords:
    """How a measure is called, and which way is better."""

    label: str
    lower_is_better: bool = False


@dataclass(frozen=True)
class ShownImage:
    """An image of a data set with what the network made of it.

    `place` says why it is shown ("worst", "median", "best"). `image` uint8 (H, W, 3) RGB of any size; `mask`
    bool (H, W), true on the object; `map` uint8 (H, W), 255 where the network is sure of it.
    """

    place: str
    name: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    map: NDArray[np.uint8]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class ReportSet:
    """What a data set of so many `images` gave.

    `means`: each measure's mean over the images, in the order in which to show them. `curves`: float64 (256,)
    each, entry k at threshold k / 255; "precision" and "recall" are drawn against each other, the others against the
    threshold. `foreground`, `background`: int64 (256,), how many pixels of object and of background got each grey level
    of a map. `slices`: label, images and means of parts of the set.
    """

    name: str
    images: int
    means: Mapping[str, float]
    curves: Mapping[str, NDArray[np.float64]]
    foreground: NDArray[np.int64]
    background: NDArray[np.int64]
    slices: Sequence[tuple[str, int, Mapping[str, float]]]
    shown: Sequence[ShownImage]


@dataclass(frozen=True)
class Report:
    """A whole page.

    `published`: for a set's name rows of system, source and its measures, under the names of `ReportSet.means`.
    `history`: an object an epoch as in a run's history.json, empty where nothing was trained. `configuration` and
    `environment` may be nested; `notes` are sentences. `measures`: what is known of measures and curves by the names
    they have in all of these; one that is not known is called by its name.
    """

    title: str
    subtitle: str
    sets: Sequence[ReportSet]
    published: Mapping[str, Sequence[tuple[str, str, Mapping[str, float]]]]
    history: Sequence[Mapping[str, Any]]
    configuration: Mapping[str, Any]
    environment: Mapping[str, Any]
    notes: Sequence[str] = ()
    measures: Mapping[str, MeasureWords] = field(default_factory=dict)

    def words(self, measure: str) -> MeasureWords:
        return self.measures.get(measure, MeasureWords(measure))

    def label(self, measure: str) -> str:
        return self.words(measure).label
