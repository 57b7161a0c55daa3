"""The network as a static graph: every expert processes every image, and routing becomes a weighting.

Export formats such as ONNX cannot express branches that depend on the content of an image.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.moe import MixtureOfExperts
from camoxpert_cli.model.routes import Route, Routes, Routing


class AllExperts(nn.Module):
    """A mixture equivalent to `mixture`, in which experts not selected for an image have zero weight."""

    def __init__(self, mixture: MixtureOfExperts) -> None:
        super().__init__()
        self.top_k = mixture.top_k
        self.gate = mixture.gate
        self.experts = mixture.experts

    def forward(self, x: Tensor, route: Route | None = None) -> tuple[Tensor, Routing]:
        """(B, C, H, W) -> the same shape, and how the images were routed; see `MixtureOfExperts`."""
        if route is None:
            route = Routes([self.gate(x)], self.top_k)[0]
        gate_logits, chosen = route.routing
        weights = torch.zeros_like(gate_logits).scatter(1, chosen, route.weights)
        out = x
        for expert, weight in zip(self.experts, weights.unbind(1), strict=True):
            out = out + expert(x) * weight.view(-1, 1, 1, 1)
        return out, route.routing


def with_all_experts(network: CamoXpert) -> CamoXpert:
    """Return a copy of `network` whose computation graph is the same for all images of one size."""
    fixed = copy.deepcopy(network)
    for number, layer in enumerate(fixed.moe_layers):
        assert isinstance(layer, MixtureOfExperts)
        fixed.moe_layers[number] = AllExperts(layer)
    return fixed
