"""A GPU that is not there: tensors without data on "cuda:0", on which a training step runs as on a card.

torch's fake tensors carry shapes, dtypes and strides through every operation; three things they cannot do are done
here. torch's engine asks the driver for streams, so the backward pass walks the graph in Python (`backward`). A value
that the host reads is known only where it follows from constants: experts are chosen as `model.routing.spread` does,
whatever the gates say, and small integers are computed on the CPU beside the fake ones. Any other float reads as 1.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

CARD = torch.device("cuda", 0)
_MOST_KNOWN = 10_000  # elements of a tensor whose values are computed
_aten = torch.ops.aten
_READ = _aten._local_scalar_dense.default
# Known without a known input.
_CONSTANTS = {_aten.arange.default, _aten.arange.start, _aten.arange.start_step, _aten.full.default}
_WHOLE = (torch.int32, torch.int64, torch.uint8, torch.bool)


@contextmanager
def fake_card() -> Iterator[None]:
    """Inside, modules and tensors can be moved to `CARD`, and computed with there; there is autocast of both dtypes."""
    optimizers: Any = import_module("torch.optim.optimizer")  # torch.optim hides its name
    clipping: Any = import_module("torch.nn.utils.clip_grad")
    supported = [*optimizers._foreach_supported_types, FakeTensor]
    with ExitStack() as stack:
        for name, value in (
            ("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
            ("torch.cuda.is_bf16_supported", lambda *_, **__: True),
            ("torch.cuda.get_device_capability", lambda *_: (8, 0)),
            ("torch.cuda.set_device", lambda *_: None),
            ("torch.autograd.backward", backward),
        ):
            stack.enter_context(patch(name, value))
        stack.enter_context(patch.object(FakeTensor, "tolist", _tolist))
        # Optimizers and norms take their many tensors at once only if these are of a type that they know.
        stack.enter_context(patch.object(optimizers, "_foreach_supported_types", supported))
        stack.enter_context(patch.object(clipping, "_has_foreach_support", lambda _, device: device.type == "cuda"))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(_Values())
        yield


class _Values(TorchDispatchMode):
    """Follows the values of small integers, and answers reads."""

    def __init__(self) -> None:
        super().__init__()
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _READ:
            return self._answer(args[0])
        result = func(*args, **kwargs)
        if func is _aten.topk.default:
            self._note(result[1], _spread(result[1].shape, args[0].shape[-1]))
        else:
            self._follow(func, args, kwargs, result)
        return result

    def _answer(self, tensor: Tensor) -> Any:
        value = self._value(tensor)
        if value is not None:
            with unset_fake_temporarily():
                return value.item()
        if tensor.dtype in _WHOLE and tensor.dtype is not torch.bool:
            raise ValueError("the host reads a whole number that depends on data")
        return tensor.dtype is torch.bool or 1.0

    def _follow(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if not outputs or any(each.numel() > _MOST_KNOWN for each in outputs):
            return
        inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        values = [self._value(each) for each in inputs]
        if not inputs and func not in _CONSTANTS:
            return
        if any(each is None for each in values):
            for each in outputs:  # written in place with what is not known
                self.known.pop(each, None)
            return
        if not any(each.dtype in _WHOLE for each in (*outputs, *inputs)):
            return
        of_input = {id(each): value for each, value in zip(inputs, values, strict=True)}

        def on_cpu(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return of_input[id(leaf)]
            return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

        with unset_fake_temporarily(), torch.no_grad():
            found = func(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))
        for output, value in zip(outputs, (each for each in tree_leaves(found) if isinstance(each, Tensor)), strict=True):
            self._note(output, value)

    def _value(self, tensor: Tensor) -> Tensor | None:
        if not isinstance(tensor, FakeTensor):
            return tensor
        return self.known.get(tensor, tensor.constant)

    def _note(self, fake: Tensor, value: Tensor) -> None:
        if isinstance(fake, FakeTensor):
            self.known[fake] = value


def _spread(shape: Sequence[int], experts: int) -> Tensor:
    """Experts of images, (..., B, K), as `model.routing.spread` chooses them."""
    images, top_k = shape[-2:]
    with unset_fake_temporarily():
        rows = torch.arange(images * top_k).view(images, top_k) % experts
        return rows.expand(*shape).contiguous()


def _tolist(tensor: FakeTensor) -> Any:
    """In one read, as of a real tensor."""
    flat = tensor.to("cpu").reshape(-1) if tensor.device.type != "cpu" else tensor.reshape(-1)
    values = [flat[at].item() for at in range(len(flat))]
    return values[0] if not tensor.dim() else _nested(values, tensor.shape)


def _nested(values: list[Any], shape: Sequence[int]) -> list[Any]:
    if len(shape) == 1:
        return values
    step = len(values) // shape[0] if shape[0] else 0
    return [_nested(values[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]


@torch.no_grad()
def backward(loss: Tensor) -> None:
    """What `torch.autograd.backward` computes: nodes in the order of torch's engine, gradients summed as there.

    `node_of` names the node at work.
    """
    assert loss.grad_fn is not None
    waiting = _dependencies(loss.grad_fn)
    buffers: dict[Any, list[Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss)]}
    ready = [(-_order(loss.grad_fn), 0, loss.grad_fn)]
    count = 0
    while ready:
        _, _, node = heapq.heappop(ready)
        gradients = buffers.pop(node, [None] * len(node._input_metadata))
        with _at_work(node):
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


_node: list[Any] = []


def node_of() -> Any:
    """The autograd node whose backward pass is under way, if one is."""
    return _node[-1] if _node else None


@contextmanager
def _at_work(node: Any) -> Iterator[None]:
    _node.append(node)
    try:
        yield
    finally:
        _node.pop()


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
    if node.materialize_grads:
        gradients = [
            torch.zeros(like.shape, dtype=like.dtype, device=like.device) if each is None else each
            for each, like in zip(gradients, node._input_metadata, strict=True)
        ]
    return node.apply(*gradients)


def _strides(tensor: Tensor) -> list[int]:
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1]


def _accumulate(buffers: dict[Any, list[Tensor | None]], node: Any, index: int, gradient: Tensor) -> None:
    wanted = node._input_metadata[index]
    if gradient.shape != wanted.shape:
        gradient = gradient.sum_to_size(wanted.shape)
    if gradient.dtype != wanted.dtype:
        gradient = gradient.to(wanted.dtype)
    buffer = buffers.setdefault(node, [None] * len(node._input_metadata))
    before = buffer[index]
    buffer[index] = gradient if before is None else before + gradient

