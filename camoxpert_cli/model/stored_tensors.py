"""Tensors that a file holds, wherever in its nested entries they lie, and whether a network can compute with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from camoxpert_cli import console
from camoxpert_cli.errors import CheckpointError, cut, shown

Keys = tuple[str, ...]

# The parts that DataParallel and DistributedDataParallel, torch.compile, Fabric and DeepSpeed, FSDP and activation
# checkpointing put into a name, before it and wherever they wrap a part of the network.
WRAPPERS = frozenset({"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# The one kind of tensor in a network that counts; torch before 0.4.1 had none of it.
COUNTER = "num_batches_tracked"
_VARIANCE = "running_var"  # of which batch norm takes the root
# No network has longer names or deeper entries. A file may, and looking into them would take for ever.
_LONGEST_NAME = 1000
_DEEPEST = 32
_MOST_SHOWN = 3
_MOST_LISTED = 20


def tensors_in(content: Any) -> Iterator[tuple[Keys, Tensor]]:
    """Every tensor with the keys that lead to it, in the file's order; a dict or list in two places is met once."""
    waiting: list[tuple[Keys, Any]] = [((), content)]
    met: set[int] = set()
    while waiting:
        keys, value = waiting.pop()
        if isinstance(value, Tensor):
            yield keys, value
            continue
        if not isinstance(value, Mapping | list | tuple) or id(value) in met or len(keys) >= _DEEPEST:
            continue
        met.add(id(value))
        waiting += [((*keys, key), each) for key, each in reversed(entries_of(value)) if len(key) <= _LONGEST_NAME]


def entries_of(value: Mapping[Any, Any] | Sequence[Any]) -> list[tuple[str, Any]]:
    """What a dict or list holds, and where, as text."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return [(key if isinstance(key, str) else shown(key), each) for key, each in items]


def without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def is_averaged(name: str) -> bool:
    """Whether what has this name says that it is a moving average of a network."""
    words = "".join(char if char.isalnum() else " " for char in name).split()
    return any(
        word.lower() in ("ema", "teacher", "swa", "averaged", "average", "shadow") or word.endswith("EMA")
        for word in words
    )


def defect(tensor: Tensor) -> str:
    """What a tensor is where it does not lie in memory as weights do, else empty."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "a sparse or nested tensor"
    if tensor.is_quantized:
        return "a quantised tensor"
    if tensor.is_meta:
        return "a tensor without numbers (on the meta device)"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "a tensor that claims more numbers than are stored"
    return ""


def refuse_unusable(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], what: object, hint: str) -> None:
    """Raise CheckpointError where weights are NaN, infinite or no real numbers with a fraction, as `own` has them.

    Takes milliseconds for a network.
    """
    found = {name: _complaint(name, value, own[name].dtype) for name, value in weights.items()}
    bad = [f"{name} ({complaint})" for name, complaint in found.items() if complaint]
    if bad:
        raise CheckpointError(
            f"{what} holds numbers that no network can compute with, in {some(bad, 'tensor')}",
            hint,
            "\n".join(bad[:_MOST_LISTED]) if len(bad) > _MOST_SHOWN else "",
        )


def not_finite(value: Tensor) -> str:
    """How many numbers of a tensor are NaN or infinite, empty for none."""
    # One of them makes their sum so, which takes a tenth of the time to find.
    if torch.isfinite(value.sum()):
        return ""
    count = value.numel() - int(torch.isfinite(value).sum())
    return f"{count} of {value.numel()} NaN or infinite" if count else ""


def some(names: Sequence[str], noun: str) -> str:
    """How many there are, and the first of them."""
    more = ", ..." if len(names) > _MOST_SHOWN else ""
    return f"{len(names)} {noun}{'s' * (len(names) != 1)}: {', '.join(map(cut, names[:_MOST_SHOWN]))}{more}"


def say_left_out(names: Sequence[str], path: object) -> None:
    """Tell which tensors of a file are not the network's, if any."""
    if names:
        console.say(f"Note: {path} holds more than the network, and that is left out: {some(names, 'tensor')}")


def _complaint(name: str, value: Tensor, wanted: torch.dtype) -> str:
    if lies_strangely := defect(value):
        return lies_strangely
    if value.is_complex() or (wanted.is_floating_point and not value.is_floating_point()):
        return str(value.dtype).removeprefix("torch.")
    if name.endswith(_VARIANCE) and (count := int((value < 0).sum())):
        return f"{count} of {value.numel()} below 0"
    # A number that float64 holds may be infinite in float32.
    return not_finite(value.detach().to(wanted if wanted.is_floating_point else torch.float64))
