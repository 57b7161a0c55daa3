"""Exponential moving average (EMA) of the unwrapped network: parameters and buffers."""

from __future__ import annotations

import weakref
from copy import deepcopy
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from camoxpert_cli.model.camoxpert import CamoXpert

# Where a module keeps a parameter or buffer. Unlike the tensor itself, that stays when the module is moved or loaded.
_Place: TypeAlias = tuple[dict[str, Any], str]


class Ema:
    """EMA of a network; `network` has the EMA weights, in eval mode. BatchNorm statistics are averaged with them."""

    def __init__(self, network: CamoXpert, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._places: _Places | None = None

    @torch.no_grad()
    def update(self, network: CamoXpert) -> None:
        """Update the EMA after an optimizer step. Early steps weigh more, or short runs would keep initial weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        if self._places is None or not self._places.are_of(self.network, network):
            self._places = _Places(self.network, network)
        averaged, counters = self._places.tensors()
        torch._foreach_lerp_(*averaged, 1 - decay)
        if counters[0]:
            torch._foreach_copy_(*counters)


class _Places:
    """Where two networks keep each value of their state dicts, which take longer to build than to average."""

    def __init__(self, ema: CamoXpert, network: CamoXpert) -> None:
        self._networks = weakref.ref(ema), weakref.ref(network)
        pairs = list(zip(_places(ema), _places(network), strict=True))
        self._averaged, self._counters = (
            [pair for pair in pairs if _at(pair[0]).is_floating_point() == floating] for floating in (True, False)
        )

    def are_of(self, *networks: CamoXpert) -> bool:
        return all(ours() is given for ours, given in zip(self._networks, networks, strict=True))

    def tensors(self) -> tuple[tuple[list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]:
        """The values that are averaged, and the integers, which are copied: of each those of the EMA and the others."""
        averaged, counters = (
            ([_at(ours) for ours, _ in pairs], [_at(theirs) for _, theirs in pairs])
            for pairs in (self._averaged, self._counters)
        )
        return averaged, counters


def _places(network: nn.Module) -> list[_Place]:
    places: list[_Place] = []
    for key in network.state_dict():
        path, _, name = key.rpartition(".")
        module = network.get_submodule(path)
        places.append((module._parameters if name in module._parameters else module._buffers, name))
    return places


def _at(place: _Place) -> Tensor:
    tensor: Tensor = place[0][place[1]]
    return tensor
