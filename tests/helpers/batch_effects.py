"""A training mode in which a picture does not see its batch."""

from __future__ import annotations

from torch import nn

from camoxpert_cli.model.camoxpert import CamoXpert

_original = CamoXpert.train


def train_without_batch_effects(network: CamoXpert, mode: bool = True) -> CamoXpert:
    """To take the place of `CamoXpert.train`: BatchNorm uses its running statistics and nothing is dropped."""
    _original(network, mode)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    return network
