"""The content of a report as plain data, independent of how scores and images are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 256


@dataclass(frozen=True)
class MeasureWords:
    """The label of a metric, and whether lower is better."""

    label: str
    lower_is_better: bool = False


@dataclass(frozen=True)
class ShownImage:
    """An image of a dataset with its ground truth and prediction.

    `place` is the reason for showing it ("worst", "median", "best"). `image` uint8 (H, W, 3) RGB of any size; `mask`
    bool (H, W), true on the object; `prediction` uint8 (H, W), 255 for certain object.
    """

    place: str
    name: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    prediction: NDArray[np.uint8]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class ReportSet:
    """The results on one dataset.

    `images`: the number of images. `means`: each metric's mean over the images, in display order. `curves`: float64
    (256,) each, entry k at threshold k / 255; "precision" and "recall" are plotted against each other, the others
    against the threshold. `foreground`, `background`: int64 (256,), the number of object and background pixels at each
    gray level of the predictions. `slices`: label, number of images and means of subsets.
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
    """The content of a whole page.

    `published`: rows of system, source and metrics by set name; the metrics have the names of `ReportSet.means`.
    `history`: one object per epoch as in a run's history.json, empty if nothing was trained. `configuration` and
    `environment` may be nested; `notes` are sentences. `measures`: labels and directions of metrics and curves by the
    names used in all other fields; a metric without an entry is labeled with its name.
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
