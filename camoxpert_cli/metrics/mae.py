"""Mean absolute error of a probability map."""

from __future__ import annotations

from torch import Tensor


def mae(probability: Tensor, mask: Tensor) -> Tensor:
    """Mean over pixels of |probability - mask|, both (H, W) in 0..1 (Perazzi et al. 2012). 0-dimensional, float64."""
    return (probability.double() - mask.double()).abs().mean()
