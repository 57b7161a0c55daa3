"""Activation checkpointing that keeps BatchNorm's running statistics correct."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from camoxpert_cli.model.cast_weights import with_cast_weights


def checkpoint_activations(module: nn.Module, *inputs: Any) -> Any:
    """Run `module` as `with_cast_weights`, without storing its activations; the backward pass recomputes them."""
    return checkpoint(with_cast_weights, module, *inputs, use_reentrant=False, context_fn=_contexts_for(module))


def _contexts_for(module: nn.Module) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    return lambda: (nullcontext(), _keep_running_statistics(module))


@contextmanager
def _keep_running_statistics(module: nn.Module) -> Iterator[None]:
    # The recomputation sees the batch that the first forward pass has already counted. torch ends it with an internal
    # exception as soon as all activations have been recomputed.
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    before = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, values in zip(norms, before, strict=True):
                for buffer, value in zip(norm.buffers(), values, strict=True):
                    buffer.copy_(value)
