"""From a checkpoint to the network it describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.program_layouts import (
    architecture_of,
    ema_in,
    fitting_architecture,
    said_size,
    weights_of,
)
from camoxpert_cli.config.eval_options import Weights
from camoxpert_cli.errors import CheckpointError, ConfigError, shown
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.cuda_errors import explaining_cuda_errors
from camoxpert_cli.user_path import user_path

_MOST_SHOWN = 5


@explaining_cuda_errors()
def load_model(path: str | Path, device: str | torch.device = "cpu", ema: bool | None = None) -> CamoXpert:
    """The network of a checkpoint of camox or of the original program, in eval mode on `device`.

    Calling it on normalised images (B, 3, H, W) gives `logits` (B, 1, H, W), `deep_logits` and `routing`. `ema` takes
    the moving EMA of the weights or, where it is False, the weights themselves; None takes the average where there
    is one, as every command does. `img_size` of the network is the side in pixels it was trained at, None where the
    file does not say. Raises CheckpointError.
    """
    try:
        file = user_path(path)
    except ValueError as error:
        raise CheckpointError(f"{shown(str(path))} is no path: {error}", "check it for typing errors") from error
    return network_of(read_checkpoint(file), file, ema).to(device)


def network_of(content: Mapping[str, Any], path: Path, ema: bool | None = None) -> CamoXpert:
    """The network that `content`, read from `path`, describes, with its weights; `ema` None: the average if any."""
    if ema is None:
        ema = uses_ema(content, path, None)
    architecture = architecture_of(content)
    if architecture is None:
        raise CheckpointError(f"{path} does not say which backbone and how many experts its network has")
    name, num_experts = architecture
    try:
        backbone = create_backbone(name)
    except ConfigError as error:
        raise CheckpointError(f"the network in {path} cannot be built: {error.message}", error.hint) from error
    network = CamoXpert(backbone, name, num_experts)
    load_weights(network, weights_of(content, ema), path)
    network.img_size = said_size(content)
    return network.eval()


def trained_size(content: Mapping[str, Any], path: Path) -> int:
    """Side in pixels of the images that the network of `content`, read from `path`, was trained on.

    Raises CheckpointError where the file does not say.
    """
    size = said_size(content)
    if size is None:
        raise CheckpointError(f"{path} does not say at which size it was trained", "give it with --img-size")
    return size


def uses_ema(content: Mapping[str, Any], path: Path, weights: Weights | None) -> bool:
    """Whether `weights` asks for the average of those in `content`, read from `path`; None: where there is one.

    Raises CheckpointError where it is asked for and not there.
    """
    there = ema_in(content) is not None
    if weights == "ema" and not there:
        raise CheckpointError(f"{path} holds no moving average of the weights", "--weights model")
    return there if weights is None else weights == "ema"


def load_weights(network: CamoXpert, weights: Mapping[str, Tensor], path: Path) -> None:
    """Fill `network`; raises CheckpointError that shows what does not fit, and loads nothing then."""
    rows = misfits(network, weights)
    if rows:
        table = console.table(["tensor", "in the file", "in the network"], rows[:_MOST_SHOWN])
        more = f"\nand {len(rows) - _MOST_SHOWN} more" if len(rows) > _MOST_SHOWN else ""
        fitting = fitting_architecture(weights)
        hint = "give the --backbone and --num-experts the checkpoint was trained with"
        if fitting is not None:
            hint = f"it fits --backbone {fitting[0]} --num-experts {fitting[1]}"
        raise CheckpointError(
            f"{path} does not fit {network.backbone_name} with {network.num_experts} experts: "
            f"{len(rows)} tensors differ",
            hint,
            details=table + more,
        )
    network.load_state_dict(dict(weights))


def misfits(network: CamoXpert, weights: Mapping[str, Tensor]) -> list[tuple[str, str, str]]:
    """Name, size in `weights` and size in `network` of each tensor that is missing, unknown or of another size."""
    own = network.state_dict()
    sizes = {name: (_size(weights.get(name)), _size(own.get(name))) for name in [*own, *weights]}
    return [(name, *pair) for name, pair in sizes.items() if pair[0] != pair[1]]


def _size(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "number"
