"""Know where checkpoints of camox and of other programs store their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor

from camoxpert_cli.checkpoints.find_networks import StoredNetworks, choose_networks, describe_content, find_networks
from camoxpert_cli.config.schema import LARGEST_SIDE, SMALLEST_SIDE
from camoxpert_cli.errors import CheckpointError, ConfigError, cut, shown
from camoxpert_cli.model.backbone import sketch_backbone, without_memory
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.stored_tensors import COUNTER


@dataclass(frozen=True)
class Layout:
    """A kind of checkpoint: its name for users, and the entries with the network and its EMA if they are fixed."""

    program: str
    network: str | None = None
    ema: str | None = None


CAMOX = Layout("camox", "network", "ema")
ORIGINAL = Layout("the original CamoXpert", "model_state_dict", "ema_state_dict")
BARE = Layout("a plain state dict")
SAFETENSORS = Layout("a .safetensors file")
LIGHTNING = Layout("Lightning")
OTHER = Layout("another program")
MOST_EXPERTS = 64
_NO_NETWORK = "it contains no CamoXpert weights"
_NETWORK_HINT = "pass a file with CamoXpert weights, such as best_model.pth of a run; see camox guide checkpoints"
_LONGEST_BACKBONE_NAME = 200
# Entries that may describe the architecture: backbone and num_experts themselves, or dicts that contain both.
DESCRIPTIONS = ("backbone", "num_experts", "args", "metadata", "hyper_parameters")


def layout_of(content: Any) -> Layout | None:
    """Return the kind of checkpoint, None if it contains no network. Raises CheckpointError if two are mixed."""
    if not isinstance(content, Mapping):
        return None
    for layout in (CAMOX, ORIGINAL):
        if _holds_tensors(content.get(layout.network)) or content.get("format") == layout.program:
            return layout
    if not (networks := find_networks(content)):
        return None
    if any(each.place.entry == () for each in networks):
        return BARE
    if "pytorch-lightning_version" in content:
        return LIGHTNING
    return SAFETENSORS if content.keys() == {"state_dict", "metadata"} else OTHER


def networks_in(content: Any) -> StoredNetworks:
    """Return the network and its EMA as `choose_networks` finds them. Raises CheckpointError if there is none."""
    networks = find_networks(content)
    layout = layout_of(content)
    if not networks:
        raise CheckpointError(_NO_NETWORK, _NETWORK_HINT, describe_content(content))
    if layout in (CAMOX, ORIGINAL):
        entries = {each.place.entry for each in networks}
        for name in (layout.network, layout.ema):
            if (name,) not in entries and (name == layout.network or content.get(name) is not None):
                raise CheckpointError(f"{name} is {shown(content.get(name))}, expected a state dict")
        networks = [each for each in networks if each.place.entry in ((layout.network,), (layout.ema,))]
    return choose_networks(content, networks)


def architecture_of(content: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return backbone and number of experts, as stored in the file or else inferred from the shapes of its weights."""
    return said_architecture(content) or fitting_architecture(networks_in(content).network.weights)


def said_architecture(content: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return backbone and number of experts if the file specifies them in a known place, else None."""
    for said in (content, *(content.get(name) for name in DESCRIPTIONS)):
        if isinstance(said, Mapping) and "backbone" in said and "num_experts" in said:
            name, experts = said["backbone"], said["num_experts"]
            count = _whole_number(experts)
            if isinstance(name, str) and len(name) <= _LONGEST_BACKBONE_NAME and 1 <= count <= MOST_EXPERTS:
                return name, count
    return None


def said_size(content: Mapping[str, Any]) -> int | None:
    """Return the image side in pixels that the network was validated at if the file specifies it, else None.

    That is `data.eval_img_size` or, without it, the size used in training.
    """
    config = content.get("config")
    settings = config.get("data") if isinstance(config, Mapping) else None
    for said in (settings, content.get("args"), content.get("metadata")):
        for name in ("eval_img_size", "img_size"):
            size = _whole_number(said.get(name)) if isinstance(said, Mapping) else 0
            if SMALLEST_SIDE <= size <= LARGEST_SIDE:
                return size
    return None


def fitting_architecture(weights: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """Infer the backbone (EdgeNeXt, test or EfficientNet-Lite) and number of experts from `weights` (bare keys)."""
    prefix = "moe_layers.0.experts."
    experts = {key.removeprefix(prefix).partition(".")[0] for key in weights if key.startswith(prefix)}
    if not 1 <= len(experts) <= MOST_EXPERTS:
        return None
    for name in [*timm.list_models("edgenext_*"), "test_resnet", *timm.list_models("tf_efficientnet_lite*")]:
        network = _outline_or_none(name, len(experts))
        if network is not None and not misfits(network, ready(network, weights)[0]):
            return name, len(experts)
    return None


@cache
def outline(backbone: str, num_experts: int) -> CamoXpert:
    """Build a network with names and shapes only, on the meta device. Raises ConfigError as `create_backbone`."""
    return without_memory(lambda: CamoXpert(sketch_backbone(backbone), backbone, num_experts))


def ready(network: CamoXpert, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights that `network` can load, and the names of tensors that other programs added.

    Missing counters become 0, since old versions of torch had none. Tensors that may belong to another network stay.
    """
    own = network.state_dict()
    endings = {name.rpartition(".")[2] for name in own}
    foreign = {name: None for name in weights if name not in own and name.rpartition(".")[2] not in endings}
    counters = {name: torch.tensor(0) for name in own if name.endswith(COUNTER) and name not in weights}
    return {**{name: weights[name] for name in weights if name not in foreign}, **counters}, [*foreign]


def misfits(network: CamoXpert, weights: Mapping[str, Tensor]) -> list[tuple[str, str, str]]:
    """Return name, shape in `weights` and shape in `network` of each tensor that is missing, unknown or mismatched."""
    own = network.state_dict()
    sizes = {name: (_size(weights.get(name)), _size(own.get(name))) for name in [*own, *weights]}
    return [(cut(name), *pair) for name, pair in sizes.items() if pair[0] != pair[1]]


def weights_of(content: Mapping[str, Any], ema: bool) -> dict[str, Tensor]:
    """Return the network's state dict or, with `ema`, its EMA weights, under camox's names.

    The original CamoXpert stores an EMA of parameters only: buffers then come from the network. Raises CheckpointError
    if there are no EMA weights.
    """
    networks = networks_in(content)
    if not ema:
        return networks.network.weights
    if networks.ema is None:
        raise CheckpointError("the checkpoint contains no EMA weights", "load the raw weights")
    return {**networks.network.weights, **networks.ema.weights}


def ema_in(content: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
    """Return the stored EMA weights under camox's names, None if there are none."""
    ema = networks_in(content).ema
    return None if ema is None else ema.weights


def epochs_complete(content: Mapping[str, Any]) -> int:
    """Return how many epochs were complete when a checkpoint was written."""
    epoch = content.get("epoch")
    if not isinstance(epoch, int):
        return 0
    # Other programs count epochs from 0 and store the one they had just finished.
    return epoch if layout_of(content) is CAMOX else epoch + 1


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, Tensor) for each in value.values())


def _outline_or_none(backbone: str, num_experts: int) -> CamoXpert | None:
    try:
        return outline(backbone, num_experts)
    except ConfigError:
        return None


def _size(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "scalar"


def _whole_number(value: Any) -> int:
    """A number of a few digits, or its text, as in .safetensors metadata; -1 for anything else."""
    text = str(value) if isinstance(value, str) or (type(value) is int and value.bit_length() < 32) else ""
    return int(text) if text.isdecimal() and len(text) < 10 else -1
