from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.metrics.mae import mae


def test_value() -> None:
    """Counted by hand: the mean over pixels of how far the map is from the mask."""
    probability = torch.tensor([[0.0, 0.25], [0.5, 1.0]])
    mask = torch.tensor([[0, 1], [1, 0]])

    assert mae(probability, mask).item() == pytest.approx((0 + 0.75 + 0.5 + 1) / 4, abs=1e-15)


@given(st.floats(0, 1, width=32), st.booleans())
def test_constant_map(value: float, filled: bool) -> None:
    """A map of one value is off by that value, or by what it lacks to one."""
    probability, mask = torch.full((3, 5), value), torch.full((3, 5), filled)

    assert mae(probability, mask).item() == pytest.approx(1 - value if filled else value, abs=1e-15)


def test_large_maps_are_summed_in_double_precision() -> None:
    """Over a million pixels the mean of one value is that value, to more digits than float32 has."""
    probability = torch.full((1000, 1001), 1e-4)
    result = mae(probability, torch.zeros(1000, 1001, dtype=torch.bool))

    assert result.dtype == torch.float64
    assert result.item() == pytest.approx(probability[0, 0].item(), rel=1e-12)
