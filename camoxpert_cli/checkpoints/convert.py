"""`camox convert-ckpt`: one checkpoint file into another, for whoever needs the weights next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from camoxpert_cli import atomic
from camoxpert_cli.checkpoints.format import is_own_file, refuse_later_version, write_safetensors, write_verified
from camoxpert_cli.checkpoints.keys import (
    DATA_PARALLEL,
    add_prefix,
    bare,
    renamed_metadata,
    shared_prefix,
    strip_prefixes,
)
from camoxpert_cli.checkpoints.load import misfits
from camoxpert_cli.checkpoints.program_layouts import (
    Layout,
    architecture_of,
    layout_of,
    said_architecture,
    state_dicts_in,
)
from camoxpert_cli.checkpoints.repack import as_before, as_original, dropped, meta_network, metadata
from camoxpert_cli.config.eval_options import Weights
from camoxpert_cli.errors import CheckpointError, UsageError
from camoxpert_cli.model.weights_file import SAFETENSORS, read_weights_file
from camoxpert_cli.targets import check_parent, check_targets, is_file_of

Keep = Literal["all", "weights"]
Program = Literal["same", "camoxpert"]


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
    content, layout = _read(source)
    before, ema = state_dicts_in(content, layout)
    prefix = shared_prefix(bare(before))
    network, ema = _choose(before, ema, weights, add, source)
    to_safetensors = target.suffix == SAFETENSORS
    # Finding it out from the weights takes seconds.
    architecture = (architecture_of if dry_run or to_safetensors or to == "camoxpert" else said_architecture)(content)

    result: Mapping[str, Any]
    if to_safetensors:
        result, ema = network, None
    elif to == "camoxpert":
        result = as_original(content, network, ema, architecture, source)
    else:
        result = as_before(content, layout, network, ema, everything=keep == "all", training=weights == "model")
    tied = len(network) - len({_place(value) for value in network.values()})
    if not dry_run:
        atomic.sweep(target)
        _write(target, result, metadata(content, architecture))
    added = DATA_PARALLEL if add else ""
    return Conversion(
        source=str(source),
        target=str(target),
        written=not dry_run,
        program=layout.program,
        removed_prefix="" if prefix == added else prefix,
        added_prefix="" if prefix == added else added,
        tensors=len(network),
        average_tensors=len(ema or {}),
        dropped=dropped(content, layout, result, architecture),
        tied=tied,
        backbone=architecture[0] if architecture else None,
        num_experts=architecture[1] if architecture else None,
        differences=_differences(network, added, architecture) if dry_run else None,
    )


def _allowed(source: Path, target: Path | None, in_place: bool, overwrite: bool) -> Path:
    """Where to write; UsageError where that would take something away unasked."""
    if target is None:
        if not in_place:
            raise UsageError("there is no file to write to", f"camox convert-ckpt {source} OUT, or --in-place")
        target = source.resolve()
    same = is_file_of(target, source)
    if same and not in_place:
        raise UsageError(f"{target} is the file to convert", "choose another name, or --in-place to replace it")
    if in_place and not same:
        raise UsageError(f"--in-place was asked for, and {target} is not {source}", "leave one of the two out")
    target = target.resolve() if same else target  # a link stays one, and what it leads to is replaced
    check_parent(target)
    check_targets(
        [target], "choose another name", is_ours=lambda path: same or is_own_file(path), overwrite=same or overwrite
    )
    return target


def _read(source: Path) -> tuple[dict[str, Any], Layout]:
    content = read_weights_file(source, mmap=True)
    refuse_later_version(content, source)
    layout = layout_of(content)
    if layout is None:
        raise CheckpointError(f"{source} holds no weights", "give a checkpoint, or a file with a state dict")
    return content, layout


def _choose(
    network: Mapping[str, Tensor], ema: Mapping[str, Tensor] | None, weights: Weights, add: bool, source: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """The two state dicts under their new keys; with `weights` "ema" the average takes the network's place."""
    chosen = _renamed(network, add)
    stripped = None if ema is None else _renamed(ema, add=False)
    if weights == "model":
        return chosen, stripped
    if stripped is None:
        raise CheckpointError(f"{source} holds no moving average of the weights", "--weights model")
    # Of the original program's average, buffers are the network's.
    chosen.update(add_prefix(stripped) if add else stripped)
    return chosen, None


def _renamed(state: Mapping[str, Tensor], add: bool) -> OrderedDict[str, Tensor]:
    """`state` under bare keys or below `module.`, its `_metadata` (module versions that torch reads) included."""
    renamed = OrderedDict(add_prefix(state) if add else strip_prefixes(state))
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:
        prefixes = shared_prefix(bare(state)), DATA_PARALLEL if add else ""
        renamed._metadata = renamed_metadata(metadata, *prefixes)  # type: ignore[attr-defined]
    return renamed


def _write(target: Path, content: Mapping[str, Any], metadata: dict[str, str]) -> None:
    if target.suffix == SAFETENSORS:
        write_safetensors(target, content, metadata)
    else:
        write_verified(target, content)


def _differences(
    network: Mapping[str, Tensor], prefix: str, architecture: tuple[str, int] | None
) -> tuple[tuple[str, str, str], ...] | None:
    if architecture is None:
        return None
    weights = {key.removeprefix(prefix): value for key, value in network.items()}
    return tuple(misfits(meta_network(*architecture), weights))


def _place(tensor: Tensor) -> tuple[int, Any, Any]:
    """Where in memory a tensor lies, and how much of it it takes."""
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.numel()
