"""Mixture of experts, routed per image, and the load-balancing loss.

Notation: B images, K experts selected per image, E experts in total, L mixture layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from camoxpert_cli.model.experts import EXPERT_TYPES
from camoxpert_cli.model.layers import GlobalAvgPool, at_least_float32


class Routing(NamedTuple):
    """Routing of one mixture layer: gate logits (B, E), float32, and indices of the selected experts (B, K)."""

    gate_logits: Tensor
    chosen: Tensor


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

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """Return the mixed features, of the same shape as `x` (B, C, H, W), and the routing.

        Each expert is called once, on all images routed to it. Unselected experts are not called: their gradient is
        None, not zero, so the optimizer does not update them.
        """
        gate_logits = at_least_float32(self.gate(x).flatten(1))
        top_logits, chosen = gate_logits.topk(self.top_k, dim=1)
        weights = top_logits.softmax(dim=1)

        # Sort the B * K (image, expert) pairs by expert; the list of counts is the layer's only host-device sync.
        order = chosen.flatten().argsort(stable=True)
        images = order.div(self.top_k, rounding_mode="floor")
        counts: list[int] = _count(chosen, len(self.experts)).tolist()

        # Select images in a channels-last view: index_select always returns a contiguous tensor, and otherwise each
        # convolution of an expert would have to convert its input back to channels last.
        pixels = x.permute(0, 2, 3, 1)
        results = [
            expert(pixels.index_select(0, members).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            for expert, members in zip(self.experts, torch.split(images, counts), strict=True)
            if len(members)
        ]
        # Restore the order of the images, with the K results of each side by side. index_add_ would keep every product
        # for the backward pass.
        pairs = torch.cat(results).index_select(0, order.argsort()).view(*chosen.shape, *pixels.shape[1:])
        mixed = (pairs * weights.view(*chosen.shape, 1, 1, 1)).sum(dim=1).to(x.dtype)
        return mixed.permute(0, 3, 1, 2), Routing(gate_logits, chosen)


def experts_per_image(num_experts: int) -> int:
    """Return K: half of the experts, but at least two if there are two."""
    return min(num_experts, max(2, num_experts // 2))


def routing_sums(layers: tuple[Routing, ...]) -> RoutingSums:
    """Sum the routing of a batch over its images, for all layers."""
    experts = layers[0].gate_logits.shape[1]
    chosen = torch.stack([_count(layer.chosen, experts) for layer in layers])
    probability = torch.stack([layer.gate_logits.softmax(dim=1).sum(dim=0) for layer in layers])
    return RoutingSums(chosen.to(probability.dtype), probability)


def balance_loss(sums: RoutingSums, images: int, top_k: int) -> Tensor:
    """Compute Switch Transformer's load-balancing loss (Fedus et al. 2021, equation 4) for top-K, summed over layers.

    Per layer: E * sum over e of f_e * P_e, where f_e is the share of the B * K selections that went to expert e and P_e
    is its mean probability; 1 when balanced. The gradient flows only through P.
    """
    share = sums.chosen / (images * top_k)
    mean_probability = sums.probability / images
    return sums.chosen.shape[1] * (share * mean_probability).sum()


def _count(chosen: Tensor, experts: int) -> Tensor:
    # bincount would synchronize on CUDA to determine its output size.
    return (chosen.reshape(-1, 1) == torch.arange(experts, device=chosen.device)).sum(dim=0)
