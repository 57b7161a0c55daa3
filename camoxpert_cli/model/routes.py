"""The routing of a batch, decided for all mixture layers together.

Notation: B images, K experts selected per image, E experts in total, L mixture layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from camoxpert_cli.model.layers import at_least_float32


class Routing(NamedTuple):
    """Routing of one mixture layer: gate logits (B, E), float32, and indices of the selected experts (B, K)."""

    gate_logits: Tensor
    chosen: Tensor


class Dispatch(NamedTuple):
    """The B * K pairs of an image and an expert, sorted by expert.

    `images` (B * K) is the image of each; `pairs` (B, K) is where the pairs of each image are; `counts` are the pairs
    of each expert.
    """

    images: Tensor
    pairs: Tensor
    counts: list[int]


class Routes:
    """Top-K routing of all layers by their gate logits, each (B, E) or (B, E, 1, 1); index it for one layer's part."""

    def __init__(self, gate_logits: Sequence[Tensor], top_k: int) -> None:
        self._gate_logits = at_least_float32(torch.stack([logits.flatten(1) for logits in gate_logits]))
        top_logits, self._chosen = self._gate_logits.topk(top_k, dim=2)
        self._weights = top_logits.softmax(dim=2)

    def __getitem__(self, layer: int) -> Route:
        return Route(self, layer, Routing(self._gate_logits[layer], self._chosen[layer]), self._weights[layer])

    @cached_property
    def dispatches(self) -> list[Dispatch]:
        """How each layer distributes its images. The counts are the network's only host-device sync."""
        order = self._chosen.flatten(1).argsort(dim=1, stable=True)
        images = order.div(self._chosen.shape[2], rounding_mode="floor")
        pairs = order.argsort(dim=1).view_as(self._chosen)
        counts: list[list[int]] = count_selections(self._chosen, self._gate_logits.shape[2]).tolist()
        return [Dispatch(*layer) for layer in zip(images, pairs, counts, strict=True)]


class Route(NamedTuple):
    """One layer's part of `routes`: its routing, and the weights (B, K) of the selected experts, float32."""

    routes: Routes
    layer: int
    routing: Routing
    weights: Tensor

    @property
    def dispatch(self) -> Dispatch:
        """How the layer distributes its images. The first use waits for the device, for all layers."""
        return self.routes.dispatches[self.layer]


def count_selections(chosen: Tensor, experts: int) -> Tensor:
    """Count how often each expert was selected in each layer: (L, B, K) -> (L, E)."""
    # bincount would synchronize on CUDA to determine its output size.
    return (chosen.flatten(1).unsqueeze(2) == torch.arange(experts, device=chosen.device)).sum(dim=1)
