"""False alarms: what is predicted in images without an object, for which the other metrics are not defined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camoxpert_cli.metrics.histogram import Counts, Prediction, count_levels

# The lowest level above one half.
_PREDICTED = 128


@dataclass(frozen=True)
class FalseAlarms:
    """Over `images` images without an object: the share in which any pixel is predicted, and that of their pixels.

    `rate` is the former, `area` the mean of the latter; both are 0..1, and lower is better.
    """

    images: int
    rate: float
    area: float

    def to_json(self) -> dict[str, float]:
        """Return the entries for results.json."""
        return {"images": self.images, "false_alarms": self.rate, "predicted_area": self.area}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FalseAlarms:
        """Read what `to_json` returned."""
        return cls(content["images"], content["false_alarms"], content["predicted_area"])


def describe(alarms: FalseAlarms) -> str:
    """Return a sentence without its full stop."""
    images = "1 image" if alarms.images == 1 else f"{alarms.images} images"
    return (
        f"{images} without an object: false alarms in {alarms.rate:.1%}, "
        f"with {alarms.area:.2%} of all pixels predicted above 0.5"
    )


def predicted_area(grey: Prediction) -> float:
    """Return the share of a prediction's pixels, uint8 (H, W), above one half.

    The prediction is never min-max normalized, which would raise its highest value to one.
    """
    return area_of(count_levels(grey))


def area_of(counts: Counts) -> float:
    """Return the same from the number of pixels of each level, int64 (256,)."""
    return int(counts[_PREDICTED:].sum()) / int(counts.sum())


def false_alarms(areas: Sequence[float]) -> FalseAlarms:
    """Compute the false alarms from the predicted area of at least one image, in any order."""
    return FalseAlarms(len(areas), sum(area > 0 for area in areas) / len(areas), math.fsum(areas) / len(areas))
