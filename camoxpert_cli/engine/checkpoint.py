"""Checkpoint files: plain types and tensors only, so that reading one can run no code.

A camox checkpoint is a dict:
    format, version      "camox", 1
    backbone             timm name
    num_experts          int
    network              state dict of the bare network
    ema                  the same of its average, or None
    epoch                epochs that were complete
    scores               validation scores of these weights, or None
    config               every setting, nested
    versions             of camox, torch and others
    training             what `last.pth` needs to go on; not in `best_model.pth`
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camoxpert_cli import atomic
from camoxpert_cli.engine.convert import strip_prefixes
from camoxpert_cli.engine.interrupts import holding_interrupts
from camoxpert_cli.errors import CheckpointError, ConfigError
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert

FORMAT = "camox"
VERSION = 1

# The original program stores its best score as a NumPy scalar; these three names are what that takes, and no more.
# Files written under NumPy 1 know the first by its older module.
_NUMPY_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
_SAFE_GLOBALS = [
    _NUMPY_SCALAR,
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
]


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` at once or not at all. Raises CheckpointError where the disk refuses."""
    try:
        # Stopped in the middle, torch's writer would turn Ctrl-C into an error of its own.
        with holding_interrupts(), atomic.replacing(path) as file:
            torch.save({"format": FORMAT, "version": VERSION, **content}, file)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        raise CheckpointError(
            f"{path} cannot be written: {error}", "free some space; the file before it is kept"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dict in a file of camox or of the original program, on the CPU.

    Raises CheckpointError for a file that is missing, damaged, needs more than plain types, or is something else.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}", "give a .pth file, such as last.pth in a run folder")
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} asks for more than plain types, or is no checkpoint; it was not loaded",
            "checkpoints of camox and of the original CamoXpert program can be read",
        ) from error
    except Exception as error:  # damaged archives end in many kinds of error
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read: {reason or type(error).__name__}") from error
    if not _is_checkpoint(content):
        raise CheckpointError(f"{path} holds no CamoXpert checkpoint")
    version = content.get("version", VERSION)
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(
            f"{path} is of version {version}, and this camox reads up to {VERSION}", "install a newer camox"
        )
    return content


def weights_of(content: Mapping[str, Any], ema: bool) -> dict[str, Tensor]:
    """The network's state dict, or that of its average, under our names.

    The original program averages parameters only: buffers come from the network then. Raises CheckpointError where
    there is no average.
    """
    network = strip_prefixes(content["network"] if "network" in content else content["model_state_dict"])
    if not ema:
        return network
    average = average_in(content)
    if average is None:
        raise CheckpointError("the checkpoint holds no moving average of the weights", "load it without the average")
    return {**network, **strip_prefixes(average)}


def average_in(content: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
    """The stored moving average under whatever names it has, None where there is none."""
    average: Mapping[str, Tensor] | None = content.get("ema" if "network" in content else "ema_state_dict")
    return average


def load_model(path: str | Path, device: str | torch.device = "cpu", ema: bool = False) -> CamoXpert:
    """The network of a checkpoint of camox or of the original program, in eval mode on `device`.

    Calling it on normalised pictures (B, 3, H, W) gives `logits` (B, 1, H, W), `deep_logits` and `balance`. `ema` takes
    the moving average of the weights. Raises CheckpointError.
    """
    content = read_checkpoint(Path(path))
    return network_of(content, Path(path), ema).to(device)


def network_of(content: Mapping[str, Any], path: Path, ema: bool | None = None) -> CamoXpert:
    """The network that `content`, read from `path`, describes, with its weights; `ema` None: the average if any."""
    if ema is None:
        ema = average_in(content) is not None
    arguments = content if "network" in content else content.get("args")
    if not isinstance(arguments, Mapping) or "backbone" not in arguments or "num_experts" not in arguments:
        raise CheckpointError(f"{path} does not say which backbone and how many experts its network has")
    name = str(arguments["backbone"])
    try:
        backbone = create_backbone(name)
    except ConfigError as error:
        raise CheckpointError(f"the network in {path} cannot be built: {error.message}", error.hint) from error
    network = CamoXpert(backbone, name, int(arguments["num_experts"]))
    load_weights(network, weights_of(content, ema), path)
    return network.eval()


def load_weights(network: CamoXpert, weights: Mapping[str, Tensor], path: Path) -> None:
    """Fill `network`; raises CheckpointError that names what does not fit, and loads nothing then."""
    own = network.state_dict()
    missing = [key for key in own if key not in weights]
    unknown = [key for key in weights if key not in own]
    sizes = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    for keys, what in ((sizes, "of another size"), (missing, "missing"), (unknown, "unknown")):
        if keys:
            raise CheckpointError(
                f"{path} does not fit {network.backbone_name} with {network.num_experts} experts: "
                f"{len(keys)} tensors are {what}, the first {keys[0]}",
                "give the --backbone and --num-experts the checkpoint was trained with",
            )
    network.load_state_dict(dict(weights))


def _is_checkpoint(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    average = average_in(content)
    return _is_state_dict(content.get("network", content.get("model_state_dict"))) and (
        average is None or _is_state_dict(average)
    )


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
