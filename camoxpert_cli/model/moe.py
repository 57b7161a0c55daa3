"""Mixture of experts, routed per image, and the load-balancing loss.

Notation: B images, K experts selected per image, E experts in total, L mixture layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from camoxpert_cli.model.dispatch import add_weighted, copies_of
from camoxpert_cli.model.experts import EXPERT_TYPES
from camoxpert_cli.model.layers import GlobalAvgPool
from camoxpert_cli.model.routes import Route, Routes, Routing, count_selections


class RoutingSums(NamedTuple):
    """Routing summed over images, one row per mixture layer (L, E); can be added over batches, replicas or ranks.

    `chosen` counts how often each expert was selected, `probability` sums the softmax over all gate logits.
    """

    chosen: Tensor
    probability: Tensor


class MixtureOfExperts(nn.Module):
    """Top-K routing: each image goes to the K experts with the largest gate logits, weighted by their softmax."""

    def __init__(self, channels: int, num_experts: int) -> None:
        super().__init__()
        self.top_k = experts_per_image(num_experts)
        self.gate = nn.Sequential(GlobalAvgPool(), nn.Conv2d(channels, num_experts, 1))
        self.experts = nn.ModuleList(
            EXPERT_TYPES[number % len(EXPERT_TYPES)](channels) for number in range(num_experts)
        )

    def forward(self, x: Tensor, route: Route | None = None) -> tuple[Tensor, Routing]:
        """Return the mixed features, of the same shape as `x` (B, C, H, W), and the routing.

        `route` is this layer's part of a `Routes`; if None, the layer's gate alone decides. Each expert is called once,
        on all images routed to it. Unselected experts are not called: their gradient is None, not zero, so the
        optimizer does not update them.
        """
        if route is None:
            route = Routes([self.gate(x)], self.top_k)[0]
        images, pairs, counts = route.dispatch
        # Select images in a channels-last view: index_select always returns a contiguous tensor, and otherwise each
        # convolution of an expert would have to convert its input back to channels last.
        pixels = x.permute(0, 2, 3, 1)
        used = [number for number, count in enumerate(counts) if count]
        batches = torch.split(copies_of(pixels, images), [counts[number] for number in used])
        results = [
            self.experts[number](batch.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            for number, batch in zip(used, batches, strict=True)
        ]
        mixed = add_weighted(pixels, torch.cat(results), route.weights, images, pairs)
        return mixed.permute(0, 3, 1, 2), route.routing


def experts_per_image(num_experts: int) -> int:
    """Return K: half of the experts, but at least two if there are two."""
    return min(num_experts, max(2, num_experts // 2))


def routing_sums(layers: tuple[Routing, ...]) -> RoutingSums:
    """Sum the routing of a batch over its images, for all layers."""
    gate_logits = torch.stack([layer.gate_logits for layer in layers])
    chosen = count_selections(torch.stack([layer.chosen for layer in layers]), gate_logits.shape[2])
    return RoutingSums(chosen.to(gate_logits.dtype), gate_logits.softmax(dim=2).sum(dim=1))


def balance_loss(sums: RoutingSums, images: int, top_k: int) -> Tensor:
    """Compute Switch Transformer's load-balancing loss (Fedus et al. 2021, equation 4) for top-K, summed over layers.

    Per layer: E * sum over e of f_e * P_e, where f_e is the share of the B * K selections that went to expert e and P_e
    is its mean probability; 1 when balanced. The gradient flows only through P.
    """
    share = sums.chosen / (images * top_k)
    mean_probability = sums.probability / images
    return sums.chosen.shape[1] * (share * mean_probability).sum()
