"""Exponential moving average of the bare network: parameters and buffers."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from camoxpert_cli.model.camoxpert import CamoXpert


class Ema:
    """`network` is the average, in eval mode. BatchNorm's statistics are averaged too: they belong to these weights."""

    def __init__(self, network: CamoXpert, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: CamoXpert) -> None:
        """Call it after each optimizer step. The first steps weigh more, else short runs keep their first weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        ema_values: list[Tensor] = []
        values: list[Tensor] = []
        for ema_value, value in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if ema_value.is_floating_point():
                ema_values.append(ema_value)
                values.append(value)
            else:
                ema_value.copy_(value)
        torch._foreach_lerp_(ema_values, values, 1 - decay)
