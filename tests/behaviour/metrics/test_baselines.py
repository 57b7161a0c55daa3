from __future__ import annotations

import pytest

from camoxpert_cli.data.synthetic import generate_image
from camoxpert_cli.metrics.baselines import colour_threshold_iou, local_variance_iou, orientation_energy_iou


@pytest.mark.parametrize(("seed", "images"), [(0, 8)])
def test_generated_images_defeat_the_baselines(seed: int, images: int) -> None:
    """On generated validation images colour stays below 0.40, and variance and orientation below 0.55."""
    pairs = [generate_image(seed, index, "val", 96) for index in range(images)]

    assert colour_threshold_iou(pairs) < 0.40
    assert local_variance_iou(pairs) < 0.55
    assert orientation_energy_iou(pairs) < 0.55
