"""Load the network that a checkpoint describes."""

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
    """Load the network of a checkpoint from camox or the original CamoXpert, in eval mode on `device`.

    Calling it on normalized images (B, 3, H, W) returns `logits` (B, 1, H, W), `deep_logits` and `routing`. `ema=True`
    loads the EMA weights, `ema=False` the raw weights, and None, as in every command, the EMA weights if there are
    any. The network's `img_size` is the image side in pixels that it was validated at, None if the file does not
    specify it. Raises CheckpointError.
    """
    try:
        file = user_path(path)
    except ValueError as error:
        raise CheckpointError(f"{shown(str(path))} is not a valid path: {error}", "check it for typos") from error
    return network_of(read_checkpoint(file), file, ema).to(device)


def network_of(content: Mapping[str, Any], path: Path, ema: bool | None = None) -> CamoXpert:
    """Build the network that `content`, read from `path`, describes; `ema` None means the EMA weights if any."""
    if ema is not False:
        ema = uses_ema(content, path, "ema" if ema else None)
    architecture = architecture_of(content)
    if architecture is None:
        raise CheckpointError(f"{path} does not specify its backbone and number of experts")
    name, num_experts = architecture
    try:
        # A file may name a network of gigabytes: check whether it contains one before allocating memory.
        sketch = outline(name, num_experts)
    except ConfigError as error:
        raise CheckpointError(f"the network in {path} cannot be built: {error.message}", error.hint) from error
    network = _filled(sketch, fitting_weights(sketch, content, path, ema))
    network.img_size = said_size(content)
    return network.eval()


def load_weights(
    network: CamoXpert, content: Mapping[str, Any], path: Path, *, ema: bool = False, tells: bool = True
) -> None:
    """Load `fitting_weights` into `network`, or raise CheckpointError and load nothing."""
    network.load_state_dict(fitting_weights(network, content, path, ema, tells=tells))


def fitting_weights(
    network: CamoXpert, content: Mapping[str, Any], path: Path, ema: bool, *, tells: bool = True
) -> dict[str, Tensor]:
    """Return exactly the weights of `network` from `content`, read from `path`: the raw ones or, with `ema`, the EMA.

    If `tells`, a note reports other tensors in the file. Raises CheckpointError if a tensor is missing, has another
    shape, or contains unusable values.
    """
    networks = networks_in(content)
    stored = weights_of(content, ema)
    weights, foreign = ready(network, stored)
    _refuse_misfits(network, weights, stored, path)
    refuse_unusable(weights, network.state_dict(), path, "use an earlier checkpoint")
    averaged = networks.ema.weights if ema and networks.ema is not None else weights
    if lacking := [name for name, _ in network.named_parameters() if name not in averaged]:
        raise CheckpointError(
            f"the EMA weights in {path} are incomplete: missing {some(lacking, 'tensor')}",
            "--weights model uses the raw weights",
        )
    if tells:
        say_left_out([*networks.others, *foreign], path)
    return weights


def validated_size(content: Mapping[str, Any], path: Path) -> int:
    """Return the image side in pixels at which the network of `content`, read from `path`, was validated.

    Raises CheckpointError if the file does not specify it.
    """
    size = said_size(content)
    if size is None:
        raise CheckpointError(
            f"{path} does not specify the image size of its validation, from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels",
            "pass it with --img-size",
        )
    return size


def uses_ema(content: Mapping[str, Any], path: Path, weights: Weights | None) -> bool:
    """Return whether to use the EMA weights in `content`, read from `path`; `weights` None means if there are any.

    Raises CheckpointError if they are requested and missing.
    """
    there = ema_in(content) is not None
    if weights == "ema" and not there:
        raise CheckpointError(f"{path} contains no EMA weights", "--weights model")
    return there if weights is None else weights == "ema"


def _filled(sketch: CamoXpert, weights: Mapping[str, Tensor]) -> CamoXpert:
    """A network like `sketch` with memory and `weights`, skipping random initialization, which doubles the time."""
    network, own = deepcopy(sketch), sketch.state_dict()
    copies = {name: torch.empty_like(own[name], device="cpu").copy_(value) for name, value in weights.items()}
    network.load_state_dict(copies, assign=True)
    if any(each.is_meta for each in network.buffers()):  # some backbones have buffers that no file contains
        network = CamoXpert(create_backbone(sketch.backbone_name), sketch.backbone_name, sketch.num_experts)
        network.load_state_dict(weights)
    return network


def _refuse_misfits(
    network: CamoXpert, weights: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: Path
) -> None:
    """Raise CheckpointError if `weights` do not match `network`, with what `stored` would match."""
    rows = misfits(network, weights)
    if rows:
        table = console.table(["tensor", "in the file", "in the network"], rows[:_MOST_SHOWN])
        more = f"\nand {len(rows) - _MOST_SHOWN} more" if len(rows) > _MOST_SHOWN else ""
        fitting = fitting_architecture(stored)
        hint = "pass the --backbone and --num-experts that the checkpoint was trained with"
        if fitting is not None:
            hint = f"--backbone {fitting[0]} --num-experts {fitting[1]}, which the file matches"
        raise CheckpointError(
            f"{path} does not match {network.backbone_name} with {console.counted(network.num_experts, 'expert')}: "
            f"{console.counted(len(rows), 'tensor differs', 'tensors differ')}",
            hint,
            details=table + more,
        )
