from __future__ import annotations

import pytest
import torch

from camoxpert_cli.model.backbone import Normalization
from camoxpert_cli.model.normalize import Normalize


def test_bytes_become_what_the_backbone_knows() -> None:
    """A byte counts as its 255th part, less the channel's mean, over the channel's deviation; no weight is added."""
    normalize = Normalize(Normalization((0.4, 0.5, 0.6), (0.1, 0.2, 0.4)))
    pixels = normalize(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)).flatten()

    assert pixels.dtype == torch.float32
    assert pixels.tolist() == pytest.approx([(0 - 0.4) / 0.1, (0.2 - 0.5) / 0.2, (1 - 0.6) / 0.4], abs=1e-6)
    assert not normalize.state_dict()
