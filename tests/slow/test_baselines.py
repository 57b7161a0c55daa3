from __future__ import annotations

import pytest

from tests.behaviour.metrics import test_baselines as once


@pytest.mark.parametrize("seed", [0, 1, 2, 42])
def test_generated_images_defeat_the_baselines(seed: int) -> None:
    """So it is whatever the seed, over as many images as `camox synth` makes for validation."""
    once.test_generated_images_defeat_the_baselines(seed, images=20)
