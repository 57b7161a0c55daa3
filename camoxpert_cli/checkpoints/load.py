"""From a checkpoint to the network it describes."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
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
    misfits,
    networks_in,
    outline,
    ready,
    said_size,
    weights_of,
)
from camoxpert_cli.config.eval_options import Weights
from camoxpert_cli.config.schema import LARGEST_SIDE, SMALLEST_SIDE
from camoxpert_cli.errors import CheckpointError, ConfigError, shown
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.stored_tensors import refuse_unusable, say_left_out, some
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
    if ema is not False:
        ema = uses_ema(content, path, "ema" if ema else None)
    architecture = architecture_of(content)
    if architecture is None:
        raise CheckpointError(f"{path} does not say which backbone and how many experts its network has")
    name, num_experts = architecture
    try:
        # A file may name a network of gigabytes: whether it holds one is seen without memory for it.
        sketch = outline(name, num_experts)
    except ConfigError as error:
        raise CheckpointError(f"the network in {path} cannot be built: {error.message}", error.hint) from error
    network = _filled(sketch, fitting_weights(sketch, content, path, ema))
    network.img_size = said_size(content)
    return network.eval()


def load_weights(
    network: CamoXpert, content: Mapping[str, Any], path: Path, *, ema: bool = False, tells: bool = True
) -> None:
    """Fill `network` with `fitting_weights`, or raise CheckpointError and load nothing."""
    network.load_state_dict(fitting_weights(network, content, path, ema, tells=tells))


def fitting_weights(
    network: CamoXpert, content: Mapping[str, Any], path: Path, ema: bool, *, tells: bool = True
) -> dict[str, Tensor]:
    """The weights in `content`, read from `path`, or their average, for `network`: all of them, and no other.

    Where it `tells`, a note says what the file holds beside them. Raises CheckpointError where one is missing, of
    another size, or holds no numbers to compute with.
    """
    networks = networks_in(content)
    stored = weights_of(content, ema)
    weights, foreign = ready(network, stored)
    _refuse_misfits(network, weights, stored, path)
    refuse_unusable(weights, network.state_dict(), path, "take a checkpoint from before that")
    averaged = networks.ema.weights if ema and networks.ema is not None else weights
    if lacking := [name for name, _ in network.named_parameters() if name not in averaged]:
        raise CheckpointError(
            f"the moving average in {path} is not whole: it lacks {some(lacking, 'tensor')}",
            "--weights model takes the weights themselves",
        )
    if tells:
        say_left_out([*networks.others, *foreign], path)
    return weights


def trained_size(content: Mapping[str, Any], path: Path) -> int:
    """Side in pixels of the images that the network of `content`, read from `path`, was trained on.

    Raises CheckpointError where the file does not say.
    """
    size = said_size(content)
    if size is None:
        raise CheckpointError(
            f"{path} does not say at which size it was trained, from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels",
            "give it with --img-size",
        )
    return size


def uses_ema(content: Mapping[str, Any], path: Path, weights: Weights | None) -> bool:
    """Whether `weights` asks for the average of those in `content`, read from `path`; None: where there is one.

    Raises CheckpointError where it is asked for and not there.
    """
    there = ema_in(content) is not None
    if weights == "ema" and not there:
        raise CheckpointError(f"{path} holds no moving average of the weights", "--weights model")
    return there if weights is None else weights == "ema"


def _filled(sketch: CamoXpert, weights: Mapping[str, Tensor]) -> CamoXpert:
    """A network like `sketch` with memory and `weights`, without random ones first, which take as long as the rest."""
    network, own = deepcopy(sketch), sketch.state_dict()
    copies = {name: torch.empty_like(own[name], device="cpu").copy_(value) for name, value in weights.items()}
    network.load_state_dict(copies, assign=True)
    if any(each.is_meta for each in network.buffers()):  # some backbones hold numbers that no file has
        network = CamoXpert(create_backbone(sketch.backbone_name), sketch.backbone_name, sketch.num_experts)
        network.load_state_dict(weights)
    return network


def _refuse_misfits(
    network: CamoXpert, weights: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: Path
) -> None:
    """Raise CheckpointError that shows which of `weights` do not fit `network`, and what those `stored` would fit."""
    rows = misfits(network, weights)
    if rows:
        table = console.table(["tensor", "in the file", "in the network"], rows[:_MOST_SHOWN])
        more = f"\nand {len(rows) - _MOST_SHOWN} more" if len(rows) > _MOST_SHOWN else ""
        fitting = fitting_architecture(stored)
        hint = "give the --backbone and --num-experts the checkpoint was trained with"
        if fitting is not None:
            hint = f"it fits --backbone {fitting[0]} --num-experts {fitting[1]}"
        raise CheckpointError(
            f"{path} does not fit {network.backbone_name} with {network.num_experts} experts: "
            f"{len(rows)} tensors differ",
            hint,
            details=table + more,
        )
