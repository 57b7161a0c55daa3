"""Find tensors in the nested entries of a file, and check whether a network can compute with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from camoxpert_cli import console
from camoxpert_cli.errors import CheckpointError, cut, shown

Keys = tuple[str, ...]

# The parts that DataParallel and DistributedDataParallel, torch.compile, Fabric and DeepSpeed, FSDP and activation
# checkpointing insert into a name, at its start and wherever they wrap a part of the network.
WRAPPERS = frozenset({"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# The only kind of counter in a network; torch before 0.4.1 did not have it.
COUNTER = "num_batches_tracked"
_VARIANCE = "running_var"  # BatchNorm takes its square root
# No network has longer names or deeper entries. A file may, and traversing them would take forever.
_LONGEST_NAME = 1000
_DEEPEST = 32
_MOST_SHOWN = 3
_MOST_LISTED = 20


def tensors_in(content: Any) -> Iterator[tuple[Keys, Tensor]]:
    """Yield every tensor with its nested keys, in the file's order; a dict or list stored twice is visited once."""
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
    """Return the items of a dict or list, with their keys or indices as text."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return [(key if isinstance(key, str) else shown(key), each) for key, each in items]


def without_wrappers(name: str) -> str:
    """Return a dotted name without the parts that wrappers insert."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def is_averaged(name: str) -> bool:
    """Return whether a name indicates averaged (EMA) weights."""
    words = "".join(char if char.isalnum() else " " for char in name).split()
    return any(
        word.lower() in ("ema", "teacher", "swa", "averaged", "average", "shadow") or word.endswith("EMA")
        for word in words
    )


def defect(tensor: Tensor) -> str:
    """Return what is wrong with a tensor that is not an ordinary dense one, else an empty string."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "a sparse or nested tensor"
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.is_meta:
        return "a tensor without data (on the meta device)"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "a tensor with more elements than are stored"
    return ""


def refuse_unusable(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], what: object, hint: str) -> None:
    """Raise CheckpointError if weights are NaN, infinite or not of the kind of dtype that `own` has.

    Takes milliseconds for a whole network.
    """
    found = {name: _complaint(name, value, own[name].dtype) for name, value in weights.items()}
    bad = [f"{name} ({complaint})" for name, complaint in found.items() if complaint]
    if bad:
        raise CheckpointError(
            f"{what} contains values that a network cannot compute with, in {some(bad, 'tensor')}",
            hint,
            "\n".join(bad[:_MOST_LISTED]) if len(bad) > _MOST_SHOWN else "",
        )


def not_finite(value: Tensor) -> str:
    """Return how many values of a tensor are NaN or infinite, as text; empty if none are."""
    # A single one makes the sum non-finite, which is ten times faster to check.
    if torch.isfinite(value.sum()):
        return ""
    count = value.numel() - int(torch.isfinite(value).sum())
    return f"{count} of {value.numel()} NaN or infinite" if count else ""


def some(names: Sequence[str], noun: str) -> str:
    """Return the number of names and the first of them: `2 tensors: a, b`."""
    more = ", ..." if len(names) > _MOST_SHOWN else ""
    return f"{console.counted(len(names), noun)}: {', '.join(map(cut, names[:_MOST_SHOWN]))}{more}"


def say_left_out(names: Sequence[str], path: object) -> None:
    """Report which tensors of a file are not part of the network, if any."""
    if names:
        console.say(f"Note: {path} contains more than the network; ignored {some(names, 'tensor')}")


def _complaint(name: str, value: Tensor, wanted: torch.dtype) -> str:
    if lies_strangely := defect(value):
        return lies_strangely
    if value.is_complex() or (wanted.is_floating_point and not value.is_floating_point()):
        return str(value.dtype).removeprefix("torch.")
    if name.endswith(_VARIANCE) and (count := int((value < 0).sum())):
        return f"{count} of {value.numel()} below 0"
    # A value that is finite in float64 may be infinite in float32.
    return not_finite(value.detach().to(wanted if wanted.is_floating_point else torch.float64))
