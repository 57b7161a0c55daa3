"""The network as a static graph: every expert processes every image, and routing becomes a weighting.

Export formats such as ONNX cannot express branches that depend on the content of an image.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.layers import at_least_float32
from camoxpert_cli.model.moe import MixtureOfExperts, Routing


class AllExperts(nn.Module):
    """A mixture equivalent to `mixture`, in which experts not selected for an image have zero weight."""

    def __init__(self, mixture: MixtureOfExperts) -> None:
        super().__init__()
        self.top_k = mixture.top_k
        self.gate = mixture.gate
        self.experts = mixture.experts

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """(B, C, H, W) -> the same shape, and how the images were routed."""
        gate_logits = at_least_float32(self.gate(x).flatten(1))
        top_logits, chosen = gate_logits.topk(self.top_k, dim=1)
        weights = torch.zeros_like(gate_logits).scatter(1, chosen, top_logits.softmax(dim=1))
        out = torch.zeros_like(x)
        for expert, weight in zip(self.experts, weights.unbind(1), strict=True):
            out = out + expert(x) * weight.view(-1, 1, 1, 1)
        return out, Routing(gate_logits, chosen)


def with_all_experts(network: CamoXpert) -> CamoXpert:
    """Return a copy of `network` whose computation graph is the same for all images of one size."""
    fixed = copy.deepcopy(network)
    for number, layer in enumerate(fixed.moe_layers):
        assert isinstance(layer, MixtureOfExperts)
        fixed.moe_layers[number] = AllExperts(layer)
    return fixed
