"""Exponential moving average (EMA) of the unwrapped network: parameters and buffers."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from camoxpert_cli.model.camoxpert import CamoXpert


class Ema:
    """EMA of a network; `network` has the EMA weights, in eval mode. BatchNorm statistics are averaged with them."""

    def __init__(self, network: CamoXpert, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: CamoXpert) -> None:
        """Update the EMA after an optimizer step. Early steps weigh more, or short runs would keep initial weights."""
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
