"""A training mode in which an image does not see its batch."""

from __future__ import annotations

from types import UnionType

from torch import nn

from camoxpert_cli.model.camoxpert import CamoXpert

# What a process runs when it starts to train with nothing that depends on how images are put into batches, in float64:
# its network, then, is that of any other division to 1e-9.
HELD_STILL = """
import torch

torch.set_default_dtype(torch.float64)

from camoxpert_cli import losses
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.batch_effects import train_without_batch_effects

losses.BALANCE_WEIGHT = 0.0
CamoXpert.train = train_without_batch_effects
"""

_original = CamoXpert.train


def train_without_batch_effects(network: CamoXpert, mode: bool = True) -> CamoXpert:
    """To take the place of `CamoXpert.train`: BatchNorm uses its running statistics and nothing is dropped."""
    return _train_without(nn.BatchNorm2d | nn.Dropout, network, mode)


def train_without_dropout(network: CamoXpert, mode: bool = True) -> CamoXpert:
    """The same, but BatchNorm normalizes with its batch."""
    return _train_without(nn.Dropout, network, mode)


def _train_without(kinds: type | UnionType, network: CamoXpert, mode: bool) -> CamoXpert:
    _original(network, mode)
    for module in network.modules():
        if isinstance(module, kinds):
            module.eval()
    return network
