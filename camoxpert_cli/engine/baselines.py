"""Non-learned baselines on the validation images of a run that generates its images."""

from __future__ import annotations

from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import read_pair
from camoxpert_cli.metrics.baselines import (
    all_foreground_iou,
    colour_threshold_iou,
    local_variance_iou,
    orientation_energy_iou,
)

BASELINES = {
    "all foreground": all_foreground_iou,
    "best color threshold": colour_threshold_iou,
    "best local variance": local_variance_iou,
    "best orientation energy": orientation_energy_iou,
}


def score_baselines(pairs: list[Pair]) -> dict[str, float]:
    """Return the mean IoU of the non-learned baselines on the validation images."""
    images = [(image, mask * 255) for image, mask in (read_pair(pair.image, pair.mask) for pair in pairs)]
    return {name: baseline(images) for name, baseline in BASELINES.items()}
