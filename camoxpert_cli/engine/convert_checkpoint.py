"""`camox convert-ckpt`: one checkpoint file into another, for whoever needs the weights next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from camoxpert_cli import __version__, atomic
from camoxpert_cli.engine.checkpoint import CheckpointNotWritten, write_verified
from camoxpert_cli.engine.convert import DATA_PARALLEL, bare, renamed_metadata, shared_prefix
from camoxpert_cli.engine.foreign import (
    BARE,
    CAMOX,
    ORIGINAL,
    Layout,
    architecture_of,
    epochs_complete,
    layout_of,
    said_architecture,
    state_dicts_in,
)
from camoxpert_cli.engine.load import misfits
from camoxpert_cli.errors import CheckpointError, UsageError
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.weights_file import CHECKSUM, SAFETENSORS, checksum, read_weights_file

Weights = Literal["model", "ema"]
Keep = Literal["all", "weights"]
Program = Literal["same", "camoxpert"]

# Entries of a camox checkpoint that only mean something beside the weights they were saved with.
_TRAINING = ("training",)


@dataclass(frozen=True)
class Conversion:
    """What was done, or would be, to a file."""

    source: str
    target: str
    written: bool
    program: str  # that wrote the source
    removed_prefix: str
    added_prefix: str
    tensors: int
    average_tensors: int
    dropped: tuple[str, ...]  # entries of the source that are not in the target
    tied: int  # tensors that share their memory with another one
    backbone: str | None
    num_experts: int | None
    differences: tuple[tuple[str, str, str], ...] | None  # from the network: name, size in file, size in network

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def convert_checkpoint(
    source: Path,
    target: Path | None,
    *,
    add: bool = False,
    weights: Weights = "model",
    keep: Keep = "all",
    to: Program = "same",
    in_place: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Conversion:
    """Write the weights in `source` to `target` (.safetensors, or any other name for torch's own format).

    Wrappers' prefixes are taken away or, with `add`, become one `module.` on the network's keys; the average never has
    one, as in the original program. `weights` says which of the two become the network's. `dry_run` writes nothing, and
    compares with the network. Raises CheckpointError for a file that cannot be read or whose keys are mixed, UsageError
    for a target that must not be written.
    """
    target = _allowed(source, target, in_place, overwrite)
    content = read_weights_file(source, mmap=True)
    layout = layout_of(content)
    if layout is None:
        raise CheckpointError(f"{source} holds no weights", "give a checkpoint, or a file with a state dict")
    network, average = state_dicts_in(content, layout)
    removed, added = shared_prefix(bare(network)), DATA_PARALLEL if add else ""
    chosen = _renamed(network, removed, added)
    stripped = None if average is None else _renamed(average, shared_prefix(bare(average)), "")
    if weights == "ema":
        if stripped is None:
            raise CheckpointError(f"{source} holds no moving average of the weights", "--weights model")
        # Of the original program's average, buffers are the network's.
        chosen.update((added + name, value) for name, value in stripped.items())
        stripped = None

    to_safetensors = target.suffix == SAFETENSORS
    # Finding it out from the weights takes seconds.
    architecture = (architecture_of if dry_run or to_safetensors or to == "camoxpert" else said_architecture)(content)
    if to_safetensors:
        result: Mapping[str, Any] = chosen
        dropped = tuple(key for key in content if key != layout.network) if layout is not BARE else ()
    elif to == "camoxpert":
        result = _as_original(content, chosen, stripped, architecture, source)
        dropped = tuple(key for key in content if layout is CAMOX and key in _TRAINING)
    else:
        result, dropped = _as_before(content, layout, chosen, stripped, keep, training=weights == "model")
    if not dry_run:
        _write(target, result, _metadata(content, architecture))
    return Conversion(
        source=str(source),
        target=str(target),
        written=not dry_run,
        program=layout.program,
        removed_prefix="" if removed == added else removed,
        added_prefix="" if removed == added else added,
        tensors=len(chosen),
        average_tensors=len(stripped or {}),
        dropped=dropped,
        tied=len(chosen) - len({_memory(value) for value in chosen.values()}),
        backbone=architecture[0] if architecture else None,
        num_experts=architecture[1] if architecture else None,
        differences=_differences(chosen, added, architecture) if dry_run else None,
    )


def _allowed(source: Path, target: Path | None, in_place: bool, overwrite: bool) -> Path:
    """Where to write; UsageError where that would take something away unasked."""
    if target is None:
        if not in_place:
            raise UsageError("there is no file to write to", f"camox convert-ckpt {source} OUT, or --in-place")
        target = source
    same = target.exists() and source.exists() and target.samefile(source)
    if same and not in_place:
        raise UsageError(f"{target} is the file to convert", "choose another name, or --in-place to replace it")
    if in_place and not same:
        raise UsageError(f"--in-place was asked for, and {target} is not {source}", "leave one of the two out")
    if target.exists() and not same and not overwrite:
        raise UsageError(f"{target} exists already", "choose another name, or --overwrite to replace it")
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent} to write {target.name} to", f"mkdir -p {target.parent}")
    return target


def _renamed(state: Mapping[str, Tensor], removed: str, added: str) -> OrderedDict[str, Tensor]:
    """`state` with another prefix, its `_metadata` (module versions that torch reads on loading) included."""
    renamed = OrderedDict((added + key.removeprefix(removed), value) for key, value in bare(state).items())
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:
        renamed._metadata = renamed_metadata(metadata, removed, added)  # type: ignore[attr-defined]
    return renamed


def _as_before(
    content: Mapping[str, Any],
    layout: Layout,
    network: Mapping[str, Tensor],
    average: Mapping[str, Tensor] | None,
    keep: Keep,
    *,
    training: bool,
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The file as its own program wrote it, with other state dicts; and what was left out."""
    if layout.network is None:
        return network, ()
    if keep == "weights" and layout not in (CAMOX, ORIGINAL):
        return network, tuple(key for key in content if key != layout.network)
    left_out = set(_TRAINING if layout is CAMOX and (keep == "weights" or not training) else ())
    result = {key: value for key, value in content.items() if key not in left_out}
    result[layout.network] = network
    if layout.average is not None and layout.average in content:
        result[layout.average] = average
    return result, tuple(key for key in content if key not in result)


def _as_original(
    content: Mapping[str, Any],
    network: Mapping[str, Tensor],
    average: Mapping[str, Tensor] | None,
    architecture: tuple[str, int] | None,
    source: Path,
) -> dict[str, Any]:
    """As the original program saves it: epochs counted from 0, an average of parameters only, settings as `args`."""
    if architecture is None:
        raise CheckpointError(f"{source} does not say which network it is, and its weights fit none that is known")
    parameters = {name for name, _ in _meta_network(*architecture).named_parameters()}
    scores = content.get("scores") or {}
    settings = {name: value for section in content.get("config", {}).values() for name, value in section.items()}
    args = content.get("args", settings)
    if average is not None:
        average = {key: value for key, value in average.items() if key in parameters}
    return {
        "epoch": epochs_complete(content) - 1,
        "model_state_dict": network,
        "ema_state_dict": average,
        "best_iou": float(scores.get("iou", content.get("best_iou", 0.0))),
        "args": {"command": "train", **args, "backbone": architecture[0], "num_experts": architecture[1]},
    }


def _write(target: Path, content: Mapping[str, Any], metadata: dict[str, str]) -> None:
    if target.suffix != SAFETENSORS:
        write_verified(target, content)
        return
    seen: set[tuple[int, Any]] = set()
    tensors = {}
    for name, value in content.items():
        # The format has no shared memory: a tied tensor is written twice.
        value = value.contiguous()
        tensors[name] = value.clone() if _memory(value) in seen else value
        seen.add(_memory(value))
    try:
        with atomic.replacing(target) as temporary:
            save_file(tensors, temporary, metadata={**metadata, CHECKSUM: checksum(tensors)})
    except Exception as error:  # safetensors has an error class of its own for whatever is wrong
        raise CheckpointNotWritten(f"{target} cannot be written: {error}", "free some space") from error


def _metadata(content: Mapping[str, Any], architecture: tuple[str, int] | None) -> dict[str, str]:
    """Of a .safetensors file: what the source had, and what says which network it is."""
    metadata = {str(key): str(value) for key, value in dict(content.get("metadata") or {}).items()}
    if architecture is not None:
        metadata |= {"backbone": architecture[0], "num_experts": str(architecture[1])}
    return {"format": "pt", **metadata, "camox": __version__}


def _differences(
    network: Mapping[str, Tensor], prefix: str, architecture: tuple[str, int] | None
) -> tuple[tuple[str, str, str], ...] | None:
    if architecture is None:
        return None
    weights = {key.removeprefix(prefix): value for key, value in network.items()}
    return tuple(misfits(_meta_network(*architecture), weights))


def _meta_network(backbone: str, num_experts: int) -> CamoXpert:
    """The network's names and sizes, without memory for its weights."""
    with torch.device("meta"):
        return CamoXpert(create_backbone(backbone), backbone, num_experts)


def _memory(tensor: Tensor) -> tuple[int, Any]:
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset()
