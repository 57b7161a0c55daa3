"""A copy of the training state that further steps do not change."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

from torch import Tensor

from camoxpert_cli.checkpoints.format import CheckpointContent

# How torch's allocator names itself in the error that it raises instead of MemoryError.
_ALLOCATOR = "DefaultCPUAllocator"


class NoMemoryForCopy(Exception):
    """Host memory does not suffice for a copy of the training state."""


def on_host(content: CheckpointContent) -> CheckpointContent:
    """Return a copy of `content` whose tensors are in host memory. Raises NoMemoryForCopy."""
    try:
        copies: dict[int, Tensor] = {}
        for tensors in _tensors_of(content):
            for tensor in tensors.values():
                copies[id(tensor)] = tensor.detach().to("cpu", copy=True)
        return deepcopy(content, copies)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _ALLOCATOR not in str(error):
            raise
    raise NoMemoryForCopy


def _tensors_of(content: CheckpointContent) -> list[Mapping[str, Tensor]]:
    found: list[Mapping[str, Tensor]] = [content.network, content.ema or {}]
    if content.training is not None:
        found += content.training.optimizer["state"].values()  # type: ignore[arg-type]  # a TypedDict of tensors
    return found
