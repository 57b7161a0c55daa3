"""torch's backward pass, walked in Python: the engine asks a card's driver for streams, and a fake has none."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_at_work: list[Any] = []


@torch.no_grad()
def backward(loss: Tensor) -> None:
    """Do what `torch.autograd.backward` does: nodes in the order of torch's engine, gradients summed as there.

    Hooks of tensors and nodes are not called.
    """
    assert loss.grad_fn is not None
    waiting = _dependencies(loss.grad_fn)
    buffers: dict[Any, list[Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss)]}
    ready = [(-_order(loss.grad_fn), 0, loss.grad_fn)]
    count = 0
    while ready:
        _, _, node = heapq.heappop(ready)
        gradients = buffers.pop(node, [None] * len(node._input_metadata))
        with _working(node):
            results = _call(node, gradients) if any(each is not None for each in gradients) else ()
            results = results if isinstance(results, tuple) else (results,)
            for (following, index), result in zip(node.next_functions, results, strict=False):
                if following is not None and result is not None:
                    _accumulate(buffers, following, index, result)
        for following, _ in node.next_functions:
            if following is not None:
                waiting[following] -= 1
                if not waiting[following]:
                    count += 1
                    heapq.heappush(ready, (-_order(following), count, following))


def node_at_work() -> Any:
    """The autograd node whose backward pass is under way, if one is."""
    return _at_work[-1] if _at_work else None


@contextmanager
def _working(node: Any) -> Iterator[None]:
    _at_work.append(node)
    try:
        yield
    finally:
        _at_work.pop()


def _order(node: Any) -> float:
    return float("inf") if "AccumulateGrad" in node.name() else float(node._sequence_nr())


def _dependencies(root: Any) -> dict[Any, int]:
    """How many nodes hand gradients to each."""
    counts: dict[Any, int] = {root: 0}
    stack = [root]
    while stack:
        for following, _ in stack.pop().next_functions:
            if following is None:
                continue
            if following not in counts:
                counts[following] = 0
                stack.append(following)
            counts[following] += 1
    return counts


def _call(node: Any, gradients: list[Tensor | None]) -> Any:
    if "AccumulateGrad" in node.name() and node.variable.grad is None:
        # The engine keeps the gradient itself where its strides are the parameter's.
        (gradient,) = gradients
        assert gradient is not None
        if _strides(gradient) == _strides(node.variable):
            node.variable.grad = gradient.detach()
            return ()
    if not isinstance(node, torch.autograd.function.BackwardCFunction):
        return node(*gradients)
    custom: Any = node
    # As the engine does unless a function asks for None with `set_materialize_grads`, which cannot be read.
    filled = [
        torch.zeros(like.shape, dtype=like.dtype, device=like.device) if each is None else each
        for each, like in zip(gradients, custom._input_metadata, strict=True)
    ]
    return custom.apply(*filled)


def _strides(tensor: Tensor) -> list[int]:
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1]


def _accumulate(buffers: dict[Any, list[Tensor | None]], node: Any, index: int, gradient: Tensor) -> None:
    wanted = node._input_metadata[index]
    if tuple(gradient.shape) != tuple(wanted.shape):
        gradient = gradient.sum_to_size(wanted.shape)
    if gradient.dtype != wanted.dtype:
        gradient = gradient.to(wanted.dtype)
    buffer = buffers.setdefault(node, [None] * len(node._input_metadata))
    before = buffer[index]
    buffer[index] = gradient if before is None else before + gradient
