"""Mixture of experts, routed per image, and the loss that keeps the experts evenly used.

Letters: B images, K experts chosen for each, E experts in all, L mixture layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from camoxpert_cli.model.experts import EXPERT_TYPES
from camoxpert_cli.model.layers import GlobalAvgPool, at_least_float32


class Routing(NamedTuple):
    """What one mixture layer decided: the gate's logits (B, E), float32, and the experts it chose (B, K)."""

    gate_logits: Tensor
    chosen: Tensor


class RoutingSums(NamedTuple):
    """Sums over images, one row a mixture layer (L, E): add them over batches, replicas or ranks at will.

    `chosen` counts how often each expert was chosen, `probability` adds the softmax over all gate logits.
    """

    chosen: Tensor
    probability: Tensor


class MixtureOfExperts(nn.Module):
    """Each image goes to the K experts with the largest gate logits, weighted by the softmax over those K."""

    def __init__(self, channels: int, num_experts: int) -> None:
        super().__init__()
        self.top_k = experts_per_image(num_experts)
        self.gate = nn.Sequential(GlobalAvgPool(), nn.Conv2d(channels, num_experts, 1))
        self.experts = nn.ModuleList(
            EXPERT_TYPES[number % len(EXPERT_TYPES)](channels) for number in range(num_experts)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """(B, C, H, W) -> the same shape, and how the images were routed.

        One call per expert on all images routed to it. An expert that no image chose is not called: it gets no
        gradient, not a zero one, and the optimizer leaves it alone.
        """
        gate_logits = at_least_float32(self.gate(x).flatten(1))
        top_logits, chosen = gate_logits.topk(self.top_k, dim=1)
        weights = top_logits.softmax(dim=1)

        # Sort the B * K (image, expert) pairs by expert; the list of counts is the layer's only host-device sync.
        order = chosen.flatten().argsort(stable=True)
        images = order.div(self.top_k, rounding_mode="floor")
        counts: list[int] = _count(chosen, len(self.experts)).tolist()

        # Images are taken with their channels last: index_select gives channels first whatever it was given, and each
        # convolution of an expert would turn its input around again.
        pixels = x.permute(0, 2, 3, 1)
        results = [
            expert(pixels.index_select(0, members).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            for expert, members in zip(self.experts, torch.split(images, counts), strict=True)
            if len(members)
        ]
        # Back to the images' order, each image's K side by side. index_add_ would keep every product for the backward
        # pass.
        pairs = torch.cat(results).index_select(0, order.argsort()).view(*chosen.shape, *pixels.shape[1:])
        mixed = (pairs * weights.view(*chosen.shape, 1, 1, 1)).sum(dim=1).to(x.dtype)
        return mixed.permute(0, 3, 1, 2), Routing(gate_logits, chosen)


def experts_per_image(num_experts: int) -> int:
    """K: half of the experts, at least two where there are two."""
    return min(num_experts, max(2, num_experts // 2))


def routing_sums(layers: tuple[Routing, ...]) -> RoutingSums:
    """Sum the routing of a batch over its images."""
    experts = layers[0].gate_logits.shape[1]
    chosen = torch.stack([_count(layer.chosen, experts) for layer in layers])
    probability = torch.stack([layer.gate_logits.softmax(dim=1).sum(dim=0) for layer in layers])
    return RoutingSums(chosen.to(probability.dtype), probability)


def balance_loss(sums: RoutingSums, images: int, top_k: int) -> Tensor:
    """Switch Transformer's load balancing loss (Fedus et al. 2021, equation 4) for top-K, summed over layers.

    Per layer E * sum over e of f_e * P_e, where f_e is the share of the B * K choices that fell on expert e and P_e
    its mean probability; 1 when balanced. The gradient flows through P alone.
    """
    share = sums.chosen / (images * top_k)
    mean_probability = sums.probability / images
    return sums.chosen.shape[1] * (share * mean_probability).sum()


def _count(chosen: Tensor, experts: int) -> Tensor:
    # bincount would synchronise on CUDA to learn its own length.
    return (chosen.reshape(-1, 1) == torch.arange(experts, device=chosen.device)).sum(dim=0)
