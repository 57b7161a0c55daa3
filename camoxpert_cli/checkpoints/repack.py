"""What a converted checkpoint holds: the source's content around other state dicts, in its own format or another."""

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

# Entries that only mean something beside the weights they were saved with.
_TRAINING = {"training", "optimizer_state_dict", "scheduler_state_dict", "scaler_state_dict", "optimizer_states"}
# What tells which weights a file holds, by the program that wrote it.
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
    """The file as its own program wrote it, with other state dicts.

    Without `everything` a file of camox or the original program keeps what tells which weights these are, another one
    nothing but them. Without `training` what goes with other weights is left out.
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
        # Both in one dict, where the prefix tells them apart.
        network = {**network, **{places.ema.place.prefix + name: value for name, value in ema.items()}}
    return _replaced(result, entry, network)


def _replaced(content: Any, entry: Keys, value: object) -> Any:
    """`content` with `value` where the keys lead to; what is around it is copied."""
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
    """As the original program saves it: epochs counted from 0, an average of parameters only, settings as `args`."""
    if architecture is None:
        raise CheckpointError(f"{source} does not say which network it is, and its weights fit none that is known")
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
    """`value`, or nothing where a file has something else in that place."""
    return value if isinstance(value, Mapping) else {}


def dropped(
    content: Mapping[str, Any],
    places: StoredNetworks,
    result: Mapping[str, Any],
    architecture: tuple[str, int] | None,
) -> tuple[str, ...]:
    """Entries of the source that are in the target under no name; tensors beside the network's are told elsewhere."""
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
    """Of a .safetensors file: what the source had, and what says which network it is."""
    metadata = {str(key): str(value) for key, value in dict(content.get("metadata") or {}).items()}
    if architecture is not None:
        metadata |= {"backbone": architecture[0], "num_experts": str(architecture[1])}
    return {"format": "pt", **metadata, "camox": __version__}
