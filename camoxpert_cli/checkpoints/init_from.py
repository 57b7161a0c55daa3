"""Start a new run with the weights of a checkpoint (`model.init_from`): what fits is taken, the rest stays new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.load import uses_ema
from camoxpert_cli.checkpoints.program_layouts import architecture_of, outline, ready, said_size, weights_of
from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.config.schema import ModelConfig
from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.stored_tensors import COUNTER, refuse_unusable, some

_GATE = ".gate."  # in the names of what has a row per expert


@dataclass(frozen=True)
class InitialWeights:
    """The weights of a checkpoint that fit a network, by name, and how to say where they come from.

    `new` are the names of the network's parameters that keep their own initial weights, entirely or in part.
    """

    weights: Mapping[str, Tensor]
    new: list[str]
    origin: str

    @property
    def has_backbone(self) -> bool:
        """Whether the backbone needs no other weights."""
        return not any(name.startswith("backbone.") for name in self.new)

    @torch.no_grad()
    def load(self, network: CamoXpert) -> None:
        """Load the weights into the network."""
        own = network.state_dict()
        for name, value in self.weights.items():
            own[name][: len(value)].copy_(value) if value.dim() else own[name].copy_(value)

    def report(self, network: CamoXpert) -> None:
        """Print where the weights of the network come from, and which are new."""
        console.say(f"Initialized from {self.origin}")
        if self.new:
            taken = sum(name in self.weights for name, _ in network.named_parameters())
            console.say(f"  taken {console.counted(taken, 'tensor')}; new or partly new: {some(self.new, 'tensor')}")


def with_architecture(resolved: Resolved) -> Resolved:
    """Return the settings with the backbone and number of experts of `model.init_from`, unless the user typed them.

    A message reports what that changes. Raises CheckpointError if the file cannot be read.
    """
    model = resolved.config.model
    assert model.init_from is not None
    path = Path(model.init_from)
    found = architecture_of(read_checkpoint(path))
    adopted: dict[str, Any] = {
        name: value
        for name, value in zip(("backbone", "num_experts"), found or (), strict=False)
        if f"model.{name}" not in resolved.typed and getattr(model, name) != value
    }
    if adopted:
        console.say(f"Using {', '.join(f'{name} {value}' for name, value in adopted.items())}, as in {path}")
    config = replace(resolved.config, model=replace(model, **adopted, init_from=str(path.absolute())))
    return replace(resolved, config=config)


def initial_weights(model: ModelConfig) -> InitialWeights:
    """Read the weights of `model.init_from`, EMA if there are any, that fit the network that `model` describes.

    A tensor fits if name and shape agree. Of a gate for another number of experts, the rows of the experts that both
    have are taken. Raises CheckpointError if the file cannot be read or its backbone is another one.
    """
    assert model.init_from is not None
    path = Path(model.init_from)
    content = read_checkpoint(path)
    ema = uses_ema(content, path, None)
    network = outline(model.backbone, model.num_experts)
    own = network.state_dict()
    stored, _ = ready(network, weights_of(content, ema))
    fitting = {name: _fitting(name, stored.get(name), tensor) for name, tensor in own.items()}
    weights = {name: value for name, value in fitting.items() if value is not None}
    if not any(name.startswith("backbone.") and not name.endswith(COUNTER) for name in weights):
        architecture = architecture_of(content)
        raise CheckpointError(
            f"{path} does not have the weights of a {model.backbone} backbone",
            "a checkpoint with that backbone"
            if architecture is None
            else f"--backbone {architecture[0]}, which the file matches",
        )
    refuse_unusable(weights, own, path, "use an earlier checkpoint")
    new = [name for name, each in network.named_parameters() if name not in weights or len(weights[name]) < len(each)]
    size = said_size(content)
    trained = "" if size is None else f", of a run validated at {size} x {size} pixels"
    return InitialWeights(weights, new, f"{path} ({'EMA' if ema else 'raw'} weights{trained})")


def _fitting(name: str, stored: Tensor | None, own: Tensor) -> Tensor | None:
    """The values of a tensor that a network takes: all, the first rows of a gate, or none."""
    if stored is None or stored.shape[1:] != own.shape[1:]:
        return None
    if stored.shape == own.shape:
        return stored
    return stored[: len(own)] if _GATE in name else None
