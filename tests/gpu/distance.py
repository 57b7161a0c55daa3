"""How far the tensors of one network are from those of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def gradients_of(parameters: Iterable[nn.Parameter], scale: float = 1.0) -> list[Tensor | None]:
    """Copies in float64 on the CPU, divided by `scale`; None where a parameter has none."""
    return [None if each.grad is None else each.grad.detach().cpu().double() / scale for each in parameters]


def distance(ours: Sequence[Tensor | None], reference: Sequence[Tensor | None]) -> float:
    """The norm of all differences over the norm of the reference.

    Raises AssertionError where one of them has a tensor that the other has not.
    """
    apart, size = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for one, other in zip(ours, reference, strict=True):
        assert (one is None) == (other is None), "an expert has a gradient in one of the networks and none in the other"
        if one is not None and other is not None:
            apart += (one.double() - other.double()).square().sum()
            size += other.double().square().sum()
    return float((apart / size).sqrt())
