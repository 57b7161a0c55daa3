"""torch's backward pass, walked in Python: the engine asks a card's driver for streams, and a fake has none."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

_at_work: list[Any] = []
_MATERIALIZES = "_noted_materialize_grads"


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
            for (following, index), result in _handed_on(node, results):
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
    if not getattr(custom, _MATERIALIZES, True):
        return custom.apply(*gradients)
    filled = [
        torch.zeros(like.shape, dtype=like.dtype, device=like.device) if each is None else each
        for each, like in zip(gradients, custom._input_metadata, strict=True)
    ]
    return custom.apply(*filled)


def _handed_on(node: Any, results: Any) -> list[tuple[tuple[Any, int], Tensor]]:
    """The gradients that a node has computed, and whose they are."""
    results = results if isinstance(results, tuple) else (results,)
    following = node.next_functions
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        # Its results are those of all inputs, also of what is no tensor, for which there is no next function.
        results = [each for each, needed in zip(results, node.needs_input_grad, strict=True) if needed]
        following = [each for each in following if each[0] is not None]
    pairs = zip(following, results, strict=False)
    return [(each, result) for each, result in pairs if each[0] is not None and result is not None]


@contextmanager
def noting_what_materializes() -> Iterator[None]:
    """Inside, functions of one's own may choose to get None for gradients that nobody computed, which torch hides."""

    def note(context: Any, value: bool) -> None:
        context.materialize_grads = value
        setattr(context, _MATERIALIZES, value)

    with patch.object(torch.autograd.function.FunctionCtx, "set_materialize_grads", note):
        yield


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
