"""Where checkpoints of camox and of other programs keep their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor

from camoxpert_cli.checkpoints.keys import strip_prefixes
from camoxpert_cli.config.schema import SMALLEST_SIDE
from camoxpert_cli.errors import CheckpointError, ConfigError
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert


@dataclass(frozen=True)
class Layout:
    """A kind of checkpoint: the entries with the network's state dict and that of its EMA, where any.

    `network` None: the content is the state dict itself. `mark` is an entry that only this program writes.
    """

    program: str
    network: str | None
    ema: str | None = None
    mark: str | None = None


CAMOX = Layout("camox", "network", "ema")
ORIGINAL = Layout("the original CamoXpert program", "model_state_dict", "ema_state_dict")
BARE = Layout("a bare state dict", None)
MOST_EXPERTS = 64
LAYOUTS = (
    CAMOX,
    ORIGINAL,
    Layout("Lightning", "state_dict", mark="pytorch-lightning_version"),
    Layout("a .safetensors file", "state_dict", mark="metadata"),
    Layout("timm", "state_dict", "state_dict_ema"),
    Layout("a training script in torchvision's manner", "model", "model_ema"),
    BARE,
)


def layout_of(content: Any) -> Layout | None:
    """The first layout that fits what a file holds, None where there are no weights."""
    return next((layout for layout in LAYOUTS if _fits(content, layout)), None)


def state_dicts_in(content: Any, layout: Layout) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None]:
    """The network's state dict and its average's, or None, with the keys as they are."""
    network = content if layout.network is None else content[layout.network]
    return network, None if layout.ema is None else content.get(layout.ema)


def architecture_of(content: Mapping[str, Any]) -> tuple[str, int] | None:
    """Backbone and number of experts: as the file says or, where it does not, as the weights' own sizes tell."""
    layout = layout_of(content)
    if layout is None:
        return None
    return said_architecture(content) or fitting_architecture(strip_prefixes(state_dicts_in(content, layout)[0]))


def said_architecture(content: Mapping[str, Any]) -> tuple[str, int] | None:
    """Backbone and number of experts where the file says so in one of the places where programs do."""
    for said in (content, content.get("args"), content.get("metadata"), content.get("hyper_parameters")):
        if isinstance(said, Mapping) and "backbone" in said and "num_experts" in said:
            name, experts = said["backbone"], said["num_experts"]
            # Metadata of .safetensors is text.
            if isinstance(name, str) and str(experts).isdecimal() and 1 <= int(experts) <= MOST_EXPERTS:
                return name, int(experts)
    return None


def said_size(content: Mapping[str, Any]) -> int | None:
    """The side in pixels at which the network was trained, where the file says so in one of the known places."""
    config = content.get("config")
    settings = config.get("data") if isinstance(config, Mapping) else None
    for said in (settings, content.get("args"), content.get("metadata")):
        size = str(said.get("img_size")) if isinstance(said, Mapping) else ""
        if size.isdecimal() and int(size) >= SMALLEST_SIDE:
            return int(size)
    return None


def fitting_architecture(weights: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """The EdgeNeXt, test or lite EfficientNet backbone and the number of experts that `weights` (bare keys) fit."""
    prefix = "moe_layers.0.experts."
    experts = {key.removeprefix(prefix).partition(".")[0] for key in weights if key.startswith(prefix)}
    if not experts:
        return None
    sizes = {key: value.shape for key, value in weights.items()}
    for name in [*timm.list_models("edgenext_*"), "test_resnet", *timm.list_models("tf_efficientnet_lite*")]:
        if _sizes_in(name, len(experts)) == sizes:
            return name, len(experts)
    return None


@cache
def _sizes_in(name: str, experts: int) -> dict[str, torch.Size] | None:
    """Of the network's tensors, None where the backbone does not fit it; building one takes timm half a second."""
    try:
        with torch.device("meta"):
            network = CamoXpert(create_backbone(name), name, experts)
    except ConfigError:
        return None
    return {key: value.shape for key, value in network.state_dict().items()}


def weights_of(content: Mapping[str, Any], ema: bool) -> dict[str, Tensor]:
    """The network's state dict, or that of its average, under our names.

    The original program averages parameters only: buffers come from the network then. Raises CheckpointError where
    there is no average.
    """
    layout = layout_of(content)
    if layout is None:
        raise CheckpointError("the file holds no weights")
    network, ema_weights = state_dicts_in(content, layout)
    if not ema:
        return strip_prefixes(network)
    if ema_weights is None:
        raise CheckpointError("the checkpoint holds no moving average of the weights", "load it without the average")
    return {**strip_prefixes(network), **strip_prefixes(ema_weights)}


def ema_in(content: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
    """The stored moving average under whatever names it has, None where there is none."""
    layout = layout_of(content)
    return None if layout is None else state_dicts_in(content, layout)[1]


def epochs_complete(content: Mapping[str, Any]) -> int:
    """Epochs that were complete when a checkpoint was written."""
    epoch = content.get("epoch")
    if not isinstance(epoch, int):
        return 0
    # Programs other than camox count epochs from 0 and store the one they had just finished.
    return epoch if layout_of(content) is CAMOX else epoch + 1


def _fits(content: Any, layout: Layout) -> bool:
    if not isinstance(content, dict) or (layout.mark is not None and layout.mark not in content):
        return False
    network = content if layout.network is None else content.get(layout.network)
    ema = None if layout.ema is None else content.get(layout.ema)
    return _is_state_dict(network) and (ema is None or _is_state_dict(ema))


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided
