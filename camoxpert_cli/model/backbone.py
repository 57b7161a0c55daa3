"""Use any timm model with feature maps at strides 4, 8, 16 and 32 as the network's encoder."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants
from torch import Tensor, nn

from camoxpert_cli.errors import CheckpointError, ConfigError, cut, first_line, nearest, one_line
from camoxpert_cli.model.stored_tensors import (
    COUNTER,
    is_averaged,
    refuse_unusable,
    tensors_in,
    without_wrappers,
)
from camoxpert_cli.model.weights_file import read_weights_file

STRIDES = (4, 8, 16, 32)
# What timm raises for models that cannot return feature maps is not specified; these were observed.
_TIMM_REFUSALS = (RuntimeError, AssertionError, AttributeError, TypeError, ValueError, KeyError, NotImplementedError)

_HUB_TIMEOUT = 5.0  # seconds

Module = TypeVar("Module", bound=nn.Module)


class Normalization(NamedTuple):
    """Mean and standard deviation per channel (RGB, for values in 0..1) that the backbone was trained with."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def create_backbone(name: str) -> nn.Module:
    """Create a timm feature extractor with random weights: (B, 3, H, W) -> four feature maps at strides 4 to 32.

    Raises ConfigError for a name unknown to timm (with the nearest names) and for a model without these strides.
    """
    _check_name(name)
    return _create(name, _indices_of_strides(name))


@cache
def sketch_backbone(name: str) -> nn.Module:
    """Like `create_backbone`, but on the meta device and cached: all callers share one. See `without_memory`."""
    _check_name(name)
    first, indices = _first_sketch(name), _indices_of_strides(name)
    # For most models, timm's default choice of feature maps is ours.
    same = tuple(first.feature_info.out_indices) == indices
    sketch: nn.Module = first if same else without_memory(lambda: _create(name, indices))
    return sketch


def create_pretrained_backbone(name: str, weights: Path | None) -> nn.Module:
    """Like `create_backbone`, with ImageNet weights from the file `weights` or, if it is None, from timm's own source.

    Raises ConfigError if timm has no weights or cannot download them, CheckpointError if the file does not match:
    weights are never left random.
    """
    _check_name(name)
    indices = _indices_of_strides(name)
    return _load_from_source(name, indices) if weights is None else _load_from_file(name, indices, weights)


def normalization_of(backbone: nn.Module) -> Normalization:
    """Return the mean and standard deviation in the backbone's timm `pretrained_cfg`."""
    cfg = backbone.pretrained_cfg
    mean, std = (tuple(float(value) for value in cfg[key]) for key in ("mean", "std"))  # type: ignore[index]
    return Normalization(mean, std)  # type: ignore[arg-type]


def maps_of(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the four feature maps as (B, C, H, W)."""
    return channels_first(backbone, backbone(images))


def channels_first(backbone: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """Return the backbone's output as (B, C, H, W); some timm models (Swin) output (B, H, W, C)."""
    if str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC"):
        maps = [features.permute(0, 3, 1, 2) for features in maps]
    return maps


@torch.enable_grad()
def parameters_by_stage(backbone: nn.Module, name: str) -> list[list[nn.Parameter]]:
    """Return the parameters in four groups, each with the first feature map that depends on it; the stem is in stage 0.

    Uses autograd instead of module names, which differ between models; every parameter must require gradients. Raises
    ConfigError if the model cannot run at 64 pixels (a fixed input size).
    """
    parameters = list(backbone.parameters())
    training = backbone.training
    backbone.eval()
    try:
        maps = maps_of(backbone, parameters[0].new_zeros(1, 3, 64, 64))
    except _TIMM_REFUSALS as error:
        raise ConfigError(
            f"backbone {name} only supports one fixed image size: {error}",
            "choose a convolutional backbone, such as edgenext_base",
        ) from error
    finally:
        backbone.train(training)
    stage_of = [len(STRIDES) - 1] * len(parameters)
    for stage in reversed(range(len(STRIDES))):
        gradients = torch.autograd.grad(maps[stage].sum(), parameters, retain_graph=True, allow_unused=True)
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                stage_of[index] = stage
    return [
        [parameter for parameter, own in zip(parameters, stage_of, strict=True) if own == stage]
        for stage in range(len(STRIDES))
    ]


def without_memory(create: Callable[[], Module]) -> Module:
    """Return the module that `create` builds, on the meta device if timm supports that for it."""
    try:
        with torch.device("meta"):
            return create()
    except (ConfigError, *_TIMM_REFUSALS):
        # Older versions of timm read values while they build a model, which the meta device does not have.
        return create()


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        guesses = nearest(name, timm.list_models(), count=3)
        meant = f"; did you mean {', '.join(guesses)}?" if guesses else ""
        raise ConfigError(
            f"timm has no backbone named {name}{meant}", "use a timm model such as edgenext_base or edgenext_small"
        )


@cache
def _indices_of_strides(name: str) -> tuple[int, ...]:
    """Indices of the model's feature maps at strides 4, 8, 16 and 32; the deepest if several have the same stride."""
    info: Any = _first_sketch(name).feature_info
    # By default timm selects only some of the feature maps (for DLA not the first); indices count all of them.
    reductions: list[int] = info.reduction(list(range(len(info))))
    missing = [stride for stride in STRIDES if stride not in reductions]
    if missing:
        strides = sorted(set(reductions))
        raise ConfigError(
            f"backbone {name} has feature maps at strides {strides}, but none at {missing}; 4, 8, 16 and 32 are "
            "required",
            "choose another backbone, such as edgenext_base",
        )
    return tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES)


@cache
def _first_sketch(name: str) -> Any:
    return without_memory(lambda: _create(name))


def _create(name: str, indices: tuple[int, ...] | None = None, **arguments: object) -> nn.Module:
    try:
        where = {} if indices is None else {"out_indices": indices}
        backbone: nn.Module = timm.create_model(name, features_only=True, **where, **arguments)
    except _TIMM_REFUSALS as error:
        raise ConfigError(
            f"backbone {name} cannot return feature maps: {error}", "choose another backbone, such as edgenext_base"
        ) from error
    return backbone


def _load_from_source(name: str, indices: tuple[int, ...]) -> nn.Module:
    cfg = timm.get_pretrained_cfg(name)
    hint = f"pass timm's weights for {name} with --backbone-weights FILE, or use random weights with --no-pretrained"
    if cfg is None or not cfg.has_weights:
        raise ConfigError(f"timm has no pretrained weights for backbone {name}", hint)
    try:
        with _without_waiting_for_the_hub():
            backbone: nn.Module = timm.create_model(name, features_only=True, out_indices=indices, pretrained=True)
    except Exception as error:  # the hub client raises whatever its transport raises
        reason = (
            first_line(error).split(". ")[0].removesuffix(".")
        )  # what follows is advice on the client's own options
        raise ConfigError(
            f"the pretrained weights of {name} are not cached and cannot be downloaded: {reason}",
            f"{hint}; see camox guide kaggle-offline",
        ) from error
    return backbone


@contextmanager
def _without_waiting_for_the_hub() -> Iterator[None]:
    """Let timm use only its cache if the hub cannot be reached: its client would otherwise retry for a minute."""
    hub = urlsplit(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE
    if not getproxies():
        try:
            socket.create_connection((hub.hostname or "", hub.port or 443), timeout=_HUB_TIMEOUT).close()
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _load_from_file(name: str, indices: tuple[int, ...], path: Path) -> nn.Module:
    hint = f"pass timm's weights for {name}"
    weights = _read_weights(path, name)
    outline, known = sketch_backbone(name).state_dict(), _known(name)
    refuse_unusable({key: value for key, value in weights.items() if key in known}, known, path, hint)
    own = {key: value for key, value in weights.items() if key in outline}
    if _holds(own, outline):  # under exactly the names of the extractor, as in a camox checkpoint
        backbone = _create(name, indices)
        backbone.load_state_dict({**backbone.state_dict(), **own})
        return backbone
    # timm silently skips tensors that do not match. So the file is loaded twice from the same random state, the second
    # time with every value changed: what is the same both times did not come from the file.
    changed = {key: torch.where(value == 0, 1, -value) for key, value in weights.items() if value.is_floating_point()}
    state = torch.random.get_rng_state()
    try:
        backbone = _filled(name, indices, weights)
        torch.random.set_rng_state(state)
        other = _filled(name, indices, {**weights, **changed}).state_dict()
    except Exception as error:  # timm's conversion of old names may fail on foreign ones in any way
        raise CheckpointError(f"{path} does not match backbone {name}: {one_line(error)}", hint) from error
    numbers = {key: value for key, value in backbone.state_dict().items() if value.is_floating_point()}
    missed = [key for key, value in numbers.items() if torch.equal(value, other[key])]
    if missed:
        raise CheckpointError(
            f"{path} does not match backbone {name}: it has no values for {len(missed)} of {len(numbers)} tensors, "
            f"the first is {missed[0]}",
            hint,
        )
    refuse_unusable(numbers, numbers, path, hint)
    return backbone


def _holds(weights: Mapping[str, Tensor], outline: Mapping[str, Tensor]) -> bool:
    """Whether `weights` are exactly the outline's, except for counters, which old versions of torch did not have."""
    sizes = {key: value.shape for key, value in outline.items() if key in weights or not key.endswith(COUNTER)}
    return {key: value.shape for key, value in weights.items()} == sizes


@cache
def _known(name: str) -> dict[str, Tensor]:
    """The tensors of the whole model, on the meta device, and those of the extractor, which renames some."""
    return {**without_memory(lambda: timm.create_model(name)).state_dict(), **sketch_backbone(name).state_dict()}


def _filled(name: str, indices: tuple[int, ...], weights: dict[str, Tensor]) -> nn.Module:
    overlay = {"state_dict": dict(weights)}
    log = logging.getLogger("timm")
    level = log.level
    log.setLevel(logging.ERROR)  # it would warn about the classifier's weights, which a backbone does not need
    try:
        backbone: Any = timm.create_model(
            name, features_only=True, out_indices=indices, pretrained=True, pretrained_cfg_overlay=overlay
        )
    finally:
        log.setLevel(level)
    backbone.pretrained_cfg.pop("state_dict", None)  # otherwise every copy of the network would keep the file in memory
    return backbone


def _read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """The model's tensors, wherever they are in the file and whatever prefix their names have."""
    tensors = [(keys, value) for keys, value in tensors_in(read_weights_file(path)) if keys]
    stored = {without_wrappers(".".join(keys)): value for keys, value in tensors}
    prefixes = _prefixes(stored, _known(name))
    most = max(prefixes.values(), default=0)
    if 2 * most < len(sketch_backbone(name).state_dict()):
        # Names from before timm had the model, which timm can convert: use the largest dict as it is.
        sizes = Counter(keys[:-1] for keys, _ in tensors)
        entry = max(sizes, key=sizes.__getitem__, default=())
        weights = {without_wrappers(keys[-1]): value for keys, value in tensors if keys[:-1] == entry}
        # timm would treat an empty one as not given, and download its own.
        if not weights:
            raise CheckpointError(
                f"{path} contains no state dict", "pass a .safetensors or .pth file with a timm state dict"
            )
        return weights
    best = [prefix for prefix, count in prefixes.items() if count == most]
    best = [prefix for prefix in best if not is_averaged(prefix)] or best
    if len(best) > 1:
        raise CheckpointError(
            f"{path} contains {len(best)} backbones, and it is unclear which one to use: {', '.join(map(cut, best))}",
            "pass a file with only one of them",
        )
    start = f"{best[0]}." if best[0] else ""
    return {key.removeprefix(start): value for key, value in stored.items() if key.startswith(start)}


def _prefixes(stored: Iterable[str], known: Collection[str]) -> Counter[str]:
    """Prefixes of known names in a file, and how many names have each."""
    longest = max(name.count(".") for name in known) + 1
    found: Counter[str] = Counter()
    for key in stored:
        parts = key.split(".")
        for at in range(max(0, len(parts) - longest), len(parts)):
            if ".".join(parts[at:]) in known:
                found[".".join(parts[:at])] += 1
    return found
