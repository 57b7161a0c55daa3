"""Assemble the content of a converted checkpoint: the source's entries around the new state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from camoxpert_cli import __version__
from camoxpert_cli.checkpoints.find_networks import CHILDREN, StoredNetworks
from camoxpert_cli.checkpoints.program_layouts import CAMOX, ORIGINAL, Layout, epochs_complete, outline
from camoxpert_cli.errors import CheckpointError, cut, shown
from camoxpert_cli.model.stored_tensors import Keys, entries_of

# Entries that are only meaningful with the weights they were saved with.
_TRAINING = {"training", "optimizer_state_dict", "scheduler_state_dict", "scaler_state_dict", "optimizer_states"}
# Entries that describe the weights in a file, by the program that wrote it.
_DESCRIBED: dict[Layout, set[str | None]] = {
    CAMOX: {"format", "version", "backbone", "num_experts", "epoch", "scores", "config", "versions"},
    ORIGINAL: {"epoch", "best_iou", "args"},
}


def as_before(
    content: Mapping[str, Any],
    layout: Layout,
    places: StoredNetworks,
    network: Mapping[str, Tensor],
    ema: Mapping[str, Tensor] | None,
    *,
    everything: bool,
    training: bool,
) -> Mapping[str, Any]:
    """Return the content in the layout of the source, with the new state dicts.

    Without `everything`, a file of camox or the original CamoXpert keeps the entries that describe the weights, any
    other file only the weights. Without `training`, training state that belongs to other weights is dropped.
    """
    if not (everything or layout in _DESCRIBED):
        return network
    kept = content.keys() if everything else _DESCRIBED[layout] | {layout.network, layout.ema}
    result: Any = {key: value for key, value in content.items() if key in kept and (training or key not in _TRAINING)}
    entry = places.network.place.entry
    if places.ema is not None and places.ema.place.entry != entry:
        result = _replaced(result, places.ema.place.entry, ema)
        if not entry:
            key = places.ema.place.entry[0]
            return {**network, key: result[key]}
    elif places.ema is not None and ema is not None:
        # Both are in one dict, distinguished by their prefix.
        network = {**network, **{places.ema.place.prefix + name: value for name, value in ema.items()}}
    return _replaced(result, entry, network)


def _replaced(content: Any, entry: Keys, value: object) -> Any:
    """A copy of `content` with `value` at the nested keys `entry`."""
    if not entry:
        return value
    items = [_replaced(each, entry[1:], value) if key == entry[0] else each for key, each in entries_of(content)]
    return dict(zip(content, items, strict=True)) if isinstance(content, Mapping) else items


def as_original(
    content: Mapping[str, Any],
    network: Mapping[str, Tensor],
    ema: Mapping[str, Tensor] | None,
    architecture: tuple[str, int] | None,
    source: Path,
) -> dict[str, Any]:
    """Return the layout of the original CamoXpert: epochs from 0, EMA of parameters only, settings as `args`."""
    if architecture is None:
        raise CheckpointError(
            f"{source} does not specify its backbone and number of experts, and its tensor shapes match no known "
            "architecture"
        )
    parameters = {name for name, _ in outline(*architecture).named_parameters()}
    if ema is not None:
        ema = {key: value for key, value in ema.items() if key in parameters}
    args = _mapping(content.get("args")) or {
        name: value for section in _mapping(content.get("config")).values() for name, value in _mapping(section).items()
    }
    best = [
        _mapping(_mapping(_mapping(content.get("training")).get("progress"))).get("best_iou"),
        _mapping(content.get("scores")).get("iou"),
        content.get("best_iou"),
    ]
    return {
        "epoch": epochs_complete(content) - 1,
        "model_state_dict": network,
        "ema_state_dict": ema,
        "best_iou": next((float(value) for value in best if isinstance(value, float)), 0.0),
        "args": {"command": "train", **args, "backbone": architecture[0], "num_experts": architecture[1]},
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    """`value`, or an empty dict if it is something else."""
    return value if isinstance(value, Mapping) else {}


def dropped(
    content: Mapping[str, Any],
    places: StoredNetworks,
    result: Mapping[str, Any],
    architecture: tuple[str, int] | None,
) -> tuple[str, ...]:
    """Return the entries of the source that are not in the target; extra tensors are reported separately."""
    stored = [each.place.entry for each in (places.network, places.ema) if each is not None]
    carried = {"metadata", *(name for entry in stored for name in (entry[:1] or CHILDREN))}
    if architecture is not None:
        carried |= {"backbone", "num_experts"}
    if "model_state_dict" in result:
        carried |= {"config", "scores", "format", "version"}
    return tuple(
        cut(key) if isinstance(key, str) else shown(key)
        for key, value in content.items()
        if not (key in carried or key in result or isinstance(value, Tensor))
    )


def metadata(content: Mapping[str, Any], architecture: tuple[str, int] | None) -> dict[str, str]:
    """Return the metadata of a .safetensors file: that of the source, plus the architecture."""
    metadata = {str(key): str(value) for key, value in dict(content.get("metadata") or {}).items()}
    if architecture is not None:
        metadata |= {"backbone": architecture[0], "num_experts": str(architecture[1])}
    return {"format": "pt", **metadata, "camox": __version__}
