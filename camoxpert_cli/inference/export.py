"""`camox export`: a checkpoint's network for other programs, without the training state."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camoxpert_cli import __version__, atomic, console
from camoxpert_cli.checkpoints.format import is_own_file, read_checkpoint, write_safetensors
from camoxpert_cli.checkpoints.load import network_of, uses_ema, validated_size
from camoxpert_cli.config.eval_options import Weights
from camoxpert_cli.errors import UsageError
from camoxpert_cli.inference.onnx import is_own_onnx, require_onnx, write_onnx
from camoxpert_cli.inference.predictions import THRESHOLD
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.weights_file import SAFETENSORS
from camoxpert_cli.targets import check_parent, check_targets, is_file_of

ONNX = ".onnx"


@dataclass(frozen=True)
class Exported:
    """Description and size of the file, and the difference of its logits from the network's; None for .safetensors."""

    description: Mapping[str, str]
    bytes: int
    difference: float | None


def export(
    checkpoint: Path,
    target: Path,
    *,
    img_size: int | None = None,
    weights: Weights | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write the network in `checkpoint` to `target`, a file name that ends in .onnx or .safetensors.

    Uses the EMA weights if there are any, unless `weights` selects others, and the size of validation if `img_size` is
    None. Raises UsageError for a target that must not be written or missing packages, CheckpointError for a
    checkpoint that cannot be read or does not contain the requested weights.
    """
    _check_target(checkpoint, target, overwrite)
    if target.suffix == ONNX:
        require_onnx()
    atomic.sweep(target)
    content = read_checkpoint(checkpoint)
    is_ema = uses_ema(content, checkpoint, weights)
    size = img_size or validated_size(content, checkpoint)
    network = network_of(content, checkpoint, is_ema)
    is_ema = is_ema or _described(content).get("weights") == "ema"  # an exported file contains no other weights
    description = _description(network, size, checkpoint, "ema" if is_ema else "model")
    difference = None
    if target.suffix == ONNX:
        experts = console.counted(network.num_experts, "expert")
        console.say(f"Exporting {network.backbone_name} with {experts} at {size} px to ONNX ...")
        difference = write_onnx(target, network, size, description)
    else:
        write_safetensors(target, network.state_dict(), {"format": "pt", **description})
    return Exported(description, target.stat().st_size, difference)


def _check_target(checkpoint: Path, target: Path, overwrite: bool) -> None:
    if target.suffix not in (ONNX, SAFETENSORS):
        raise UsageError(
            f"{target} has no known export format, expected {ONNX} or {SAFETENSORS}",
            f"choose a name that ends in {ONNX} or {SAFETENSORS}, for example {target.with_suffix(ONNX)}",
        )
    if os.path.isdir(target):  # noqa: PTH112 -- False for impossible names
        raise UsageError(f"{target} is a folder", f"choose a file name, for example {target / f'camoxpert{ONNX}'}")
    if is_file_of(target, checkpoint):
        raise UsageError(f"{target} is the checkpoint itself", "choose another name")
    check_parent(target)
    is_ours = is_own_onnx if target.suffix == ONNX else is_own_file
    check_targets([target], "choose another name", is_ours=is_ours, overwrite=overwrite)


def _description(network: CamoXpert, img_size: int, checkpoint: Path, weights: Weights) -> dict[str, str]:
    """Everything needed to run the network; numbers as JSON. `load_model` reads the first two."""
    return {
        "backbone": network.backbone_name,
        "num_experts": str(network.num_experts),
        "img_size": str(img_size),
        "mean": json.dumps(network.normalization.mean),
        "std": json.dumps(network.normalization.std),
        "threshold": str(THRESHOLD),
        "weights": weights,
        "source": checkpoint.name.encode("utf-8", "backslashreplace").decode(),  # a file name need not be valid UTF-8
        "camox": __version__,
    }


def _described(content: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = content.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}
