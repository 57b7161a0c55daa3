"""`camox convert-ckpt`: convert a checkpoint file for another program or purpose."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from camoxpert_cli import atomic, console
from camoxpert_cli.checkpoints.find_networks import StoredNetwork, StoredNetworks, below, find_networks
from camoxpert_cli.checkpoints.format import (
    is_own_file,
    naming,
    refuse_later_version,
    write_safetensors,
    write_verified,
)
from camoxpert_cli.checkpoints.keys import DATA_PARALLEL, add_prefix, renamed_metadata
from camoxpert_cli.checkpoints.load import fitting_weights
from camoxpert_cli.checkpoints.program_layouts import (
    DESCRIPTIONS,
    architecture_of,
    ema_in,
    layout_of,
    misfits,
    networks_in,
    outline,
    ready,
    said_architecture,
)
from camoxpert_cli.checkpoints.repack import as_before, as_original, dropped, metadata
from camoxpert_cli.config.eval_options import Weights
from camoxpert_cli.errors import CheckpointError, ConfigError, UsageError, cut
from camoxpert_cli.model.stored_tensors import say_left_out
from camoxpert_cli.model.weights_file import SAFETENSORS, read_weights_file
from camoxpert_cli.targets import check_parent, check_targets, is_file_of

Keep = Literal["all", "weights"]
Program = Literal["same", "camoxpert"]


@dataclass(frozen=True)
class Conversion:
    """What was done to a file or, in a dry run, would be done."""

    source: str
    target: str
    written: bool
    program: str  # which wrote the source
    network: str  # the entry that contains the network, empty for the whole file
    removed_prefix: str
    added_prefix: str
    tensors: int
    ema_tensors: int
    dropped: tuple[str, ...]  # entries of the source that are not in the target
    others: tuple[str, ...]  # tensors that were stored among the network's and are not in the target
    tied: int  # tensors that share memory with another one
    backbone: str | None
    num_experts: int | None
    differences: tuple[tuple[str, str, str], ...] | None  # from the network: name, shape in file, shape in network


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
    as_is: bool = False,
    entry: str | None = None,
) -> Conversion:
    """Write the weights in `source` to `target` (.safetensors, or any other name for torch's own format).

    Prefixes of wrappers are removed or, with `add`, replaced by a single `module.` on the network's keys; EMA weights
    never have one, as in the original CamoXpert. `weights` selects whether the raw or the EMA weights become the
    network's, and `entry` selects the network if there are several. `dry_run` writes nothing and compares the weights
    with the network. Raises CheckpointError if the file cannot be read or, unless `as_is`, if the result could not be
    loaded; UsageError for a target that must not be written.
    """
    target = _allowed(source, target, in_place, overwrite)
    content = _read(source, entry)
    layout, places = layout_of(content), networks_in(content)
    assert layout is not None
    prefix = places.network.place.prefix
    to_safetensors = target.suffix == SAFETENSORS
    # Inferring it from the weights takes seconds.
    tells = said_architecture if as_is and not (dry_run or to_safetensors or to == "camoxpert") else architecture_of
    architecture = tells(content)
    network, ema = _choose(content, places, weights, add, source)
    others = list(places.others)
    if architecture is not None and not as_is:
        added = [*(ready(outline(*architecture), places.network.weights)[1])]
        others += added
        for name in added:
            network.pop((DATA_PARALLEL if add else "") + name)
    say_left_out(others, source)

    result: Mapping[str, Any]
    if to_safetensors:
        result, ema = network, None
    elif to == "camoxpert":
        result = as_original(content, network, ema, architecture, source)
    else:
        result = as_before(content, layout, places, network, ema, everything=keep == "all", training=weights == "model")
    described = metadata(content, architecture)
    if not dry_run:
        try:
            _refuse_unloadable({"state_dict": result, "metadata": described} if to_safetensors else result, source)
        except CheckpointError as error:
            if not as_is:
                raise
            console.warn(f"{error.message}; written anyway because of --as-is")
        _allowed(source, target, in_place, overwrite)  # once more: another process may have written it since
        atomic.sweep(target)
        _write(target, result, described)
    added_prefix = DATA_PARALLEL if add else ""
    return Conversion(
        source=str(source),
        target=str(target),
        written=not dry_run,
        program=layout.program,
        network=str(places.network.place),
        removed_prefix="" if prefix == added_prefix else prefix,
        added_prefix="" if prefix == added_prefix else added_prefix,
        tensors=len(network),
        ema_tensors=len(ema or {}),
        dropped=dropped(content, places, result, architecture),
        others=tuple(map(cut, others)),
        tied=len(network) - len({_place(value) for value in network.values()}),
        backbone=architecture[0] if architecture else None,
        num_experts=architecture[1] if architecture else None,
        differences=_differences(network, added_prefix, architecture) if dry_run else None,
    )


def _allowed(source: Path, target: Path | None, in_place: bool, overwrite: bool) -> Path:
    """Return the path to write to. Raises UsageError if that would overwrite something without permission."""
    if target is None:
        if not in_place:
            raise UsageError("no output file was given", f"camox convert-ckpt {source} OUT, or --in-place")
        target = source.resolve()
    same = is_file_of(target, source)
    if same and not in_place:
        raise UsageError(f"{target} is the input file", "choose another name, or pass --in-place to replace it")
    if in_place and not same:
        raise UsageError(f"--in-place was given, but {target} is not {source}", "omit --in-place or the output file")
    target = target.resolve() if same else target  # a link is kept, and its target is replaced
    check_parent(target)
    check_targets(
        [target], "choose another name", is_ours=lambda path: same or is_own_file(path), overwrite=same or overwrite
    )
    return target


def _read(source: Path, entry: str | None) -> dict[str, Any]:
    """The content of the file; if `entry` is given, only that network and the entries that describe it."""
    content = read_weights_file(source, mmap=True)
    refuse_later_version(content, source)
    with naming(source):
        if entry is None:
            networks_in(content)
            return content
        networks = {str(each.place): each for each in find_networks(content)}
    if entry not in networks:
        raise CheckpointError(
            f"{source} contains no network at --entry {entry}",
            f"entries with a network: {', '.join(map(cut, networks))}" if networks else "omit --entry",
        )
    described = {key: content[key] for key in DESCRIPTIONS if key in content}
    return {**described, "state_dict": networks[entry].weights}


def _choose(
    content: Mapping[str, Any], places: StoredNetworks, weights: Weights, add: bool, source: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Both state dicts under their new keys; with `weights` "ema", the EMA weights replace the network's."""
    chosen = _renamed(content, places.network, add)
    ema = None if places.ema is None else _renamed(content, places.ema, add=False)
    if weights == "model":
        return chosen, ema
    if ema is None:
        raise CheckpointError(f"{source} contains no EMA weights", "--weights model")
    # The original CamoXpert stores no EMA of buffers: those of the network are used.
    chosen.update(add_prefix(ema) if add else ema)
    return chosen, None


def _renamed(content: Mapping[str, Any], stored: StoredNetwork, add: bool) -> OrderedDict[str, Tensor]:
    """A network under bare keys or with `module.`, including its `_metadata` (module versions that torch reads)."""
    weights = {name: value.detach() for name, value in stored.weights.items()}
    renamed = OrderedDict(add_prefix(weights) if add else weights)
    metadata = getattr(below(content, stored.place.entry), "_metadata", None)
    if isinstance(metadata, Mapping):
        added = DATA_PARALLEL if add else ""
        renamed._metadata = renamed_metadata(metadata, stored.place.prefix, added)  # type: ignore[attr-defined]
    return renamed


def _refuse_unloadable(content: Mapping[str, Any], source: Path) -> None:
    """Raise CheckpointError if the result could not be loaded."""
    try:
        architecture = architecture_of(content)
        if architecture is None:
            raise CheckpointError(
                f"{source} does not specify its backbone and number of experts, and its tensor shapes match no known "
                "architecture"
            )
        for ema in (False, True) if ema_in(content) is not None else (False,):
            fitting_weights(outline(*architecture), content, source, ema, tells=False)
    except (CheckpointError, ConfigError) as error:
        details = error.details or error.hint
        raise CheckpointError(
            f"{error.message}; the converted file could not be loaded",
            "--as-is writes it anyway; --dry-run shows what does not match",
            details,
        ) from error


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
    return tuple(misfits(outline(*architecture), weights))


def _place(tensor: Tensor) -> tuple[int, Any, Any]:
    """The memory that a tensor occupies: storage, offset and number of elements."""
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.numel()
