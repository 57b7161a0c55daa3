"""Convert the weights of a part of the network for autocast in one operation, instead of one per weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# These compute with float32 weights under autocast.
_KEEP_FLOAT32 = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


def with_cast_weights(module: nn.Module, *inputs: Any) -> Any:
    """Call `module`, under autocast with weights in the dtype of autocast."""
    with cast_weights(module, inputs[0].device.type):
        return module(*inputs)


@contextmanager
def cast_weights(module: nn.Module, device_type: str) -> Iterator[None]:
    """Replace the weights of `module` by ones in autocast's dtype, if autocast is enabled; gradients reach the weights.

    A feature extractor's children, which are called one after the other, get theirs when they are called: so their
    gradients are complete as soon as the backward pass has left them, and not only at its end.
    """
    compiled = module._compiled_call_impl is not None  # such a module casts where it computes
    if compiled or torch.compiler.is_compiling() or not torch.is_autocast_enabled(device_type):
        yield
        return
    dtype = torch.get_autocast_dtype(device_type)
    replaced: list[tuple[MutableMapping[str, Any], str, Tensor]] = []
    children = list(module.children()) if isinstance(module, nn.ModuleDict) else []
    try:
        for child in children:
            child.forward = _replacing_first(child, dtype, replaced)
        if not children:
            _replace(module, dtype, replaced)
        yield
    finally:
        for child in children:
            vars(child).pop("forward", None)
        for holder, name, weight in replaced:
            holder[name] = weight


def _replacing_first(
    module: nn.Module, dtype: torch.dtype, replaced: list[tuple[MutableMapping[str, Any], str, Tensor]]
) -> Callable[..., Any]:
    # Not module.forward, which may be that of another thread, whose weights are no longer put back once it has ended.
    forward = partial(type(module).forward, module)

    def replace_and_call(*inputs: Any, **options: Any) -> Any:
        _replace(module, dtype, replaced)
        return forward(*inputs, **options)

    return replace_and_call


def _replace(
    module: nn.Module, dtype: torch.dtype, replaced: list[tuple[MutableMapping[str, Any], str, Tensor]]
) -> None:
    found: list[tuple[MutableMapping[str, Any], str, Tensor]] = []
    for part in module.modules():
        if not isinstance(part, _KEEP_FLOAT32):
            # The weights of a DataParallel replica are plain attributes.
            former = getattr(part, "_former_parameters", None)
            holder: MutableMapping[str, Any] = part.__dict__ if former else part._parameters
            found += [(holder, name, holder[name]) for name in former or holder if _is_float32(holder[name])]
    if found:
        replaced += found
        for (holder, name, _), cast in zip(found, _Cast.apply(dtype, *(weight for _, _, weight in found)), strict=True):
            holder[name] = cast


def _is_float32(weight: Tensor | None) -> bool:
    return weight is not None and weight.dtype == torch.float32


class _Cast(Function):
    @staticmethod
    def forward(context: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        context.set_materialize_grads(False)  # a weight that was not used has no gradient
        return tuple(_copies(weights, dtype))

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        wide = iter(_copies([each for each in gradients if each is not None], torch.float32))
        return None, *(None if each is None else next(wide) for each in gradients)


def _copies(tensors: Any, dtype: torch.dtype) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, list(tensors))
    return copies
