"""What one operation on the card costs, from its name and the sizes of its tensors.

The rules:

- One launch for each dispatched ATen operation that computes or copies on the card; views, `empty`, `detach` and the
  like launch nothing. What takes several kernels (a convolution's backward pass, a norm, a list of tensors updated by
  one fused or foreach operation) still counts once.
- Bytes are those of the tensors that it reads and those that it writes, each once; of an expanded tensor what is
  stored. What is only written (`copy_`, `fill_`) is not read; of `index_select`, `gather` and the like, no more of the
  source is read than comes out. Caches and workspaces are not known.
- A cast is a copy that changes the dtype; a fill writes one value everywhere.
- The host waits where it reads a value, where the size of a result depends on values, for a copy to the host, and for
  one to the card that is not `non_blocking`: where `torch.cuda.set_sync_debug_mode` would warn.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "empty_permuted",
    "detach",
    "detach_",
    "alias",
    "lift_fresh",
    "_unsafe_view",
    "_local_scalar_dense",
    "resize_",
    "set_",
    "record_stream",
    "is_pinned",
    "requires_grad_",
}
_FILLS = {
    "fill_",
    "zero_",
    "zeros",
    "zeros_like",
    "new_zeros",
    "ones",
    "ones_like",
    "new_ones",
    "full",
    "full_like",
    "new_full",
    "_foreach_zero_",
}
_ONLY_WRITTEN = {"copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "random_", "_foreach_copy_"}
# Operations that read as many elements of their first argument as come out, and that change as many as they are given.
_TAKING = {"index_select", "gather", "index", "embedding", "take_along_dim"}
_PUTTING = {"index_add_", "scatter_add_", "index_put_", "_index_put_impl_", "index_copy_"}
_SIZED_BY_VALUES = {"nonzero", "masked_select", "unique", "_unique2", "bincount", "equal", "repeat_interleave", "item"}


def costs(func: Any, args: Any, kwargs: Any, result: Any) -> Counter[str]:
    """Launches, bytes, casts, fills and waits of one operation, as far as there are any."""
    name = func._schema.name.partition("::")[2]
    namespace = func._schema.name.partition("::")[0]
    inputs, outputs = _tensors((args, kwargs)), _tensors(result)
    found = Counter[str]()
    if namespace in ("prim", "profiler") or not any(_on_card(each) for each in (*inputs, *outputs)):
        return found
    if _waits(name, args, kwargs, inputs, outputs):
        found["waits"] = 1
    if name in _NO_KERNEL or func.is_view or not any(each.numel() for each in (*inputs, *outputs)):
        return found
    found["launches"] = 1
    found["bytes"] = _bytes(func, name, args, kwargs, outputs)
    if name in ("_to_copy", "copy_", "_foreach_copy_"):
        source, target = (inputs[0], outputs[0]) if name == "_to_copy" else (inputs[-1], inputs[0])
        if source.dtype != target.dtype:
            found["casts"] = 1
    if name in _FILLS:
        found["fills"] = 1
    return found


def _waits(name: str, args: Any, kwargs: Any, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    if name == "_local_scalar_dense" or name in _SIZED_BY_VALUES:
        return name != "repeat_interleave" or kwargs.get("output_size") is None
    if name in ("index", "index_put_", "_index_put_impl_"):
        return any(each.dtype in (torch.bool, torch.uint8) for each in _tensors(args[1]))
    if name == "_to_copy":
        return _on_card(inputs[0]) != _on_card(outputs[0]) and not kwargs.get("non_blocking", False)
    if name == "copy_":
        blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        return _on_card(inputs[0]) != _on_card(inputs[1]) and blocking
    return False


def _bytes(func: Any, name: str, args: Any, kwargs: Any, outputs: list[Tensor]) -> int:
    if name in _TAKING:
        written = sum(map(_stored, outputs))
        return 2 * written + sum(map(_stored, _tensors(args[1:])))
    if name in _PUTTING:
        (changed, *rest) = (_stored(each) for each in _tensors(args))
        given = max(rest, default=0)
        return 2 * min(changed, given) + sum(rest)
    if name in _FILLS and not func._schema.is_mutable:
        return sum(map(_stored, outputs))
    total = 0
    named = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | dict(kwargs)
    for argument in func._schema.arguments:
        size = sum(map(_stored, _tensors(named.get(argument.name))))
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        total += size * ((name not in _ONLY_WRITTEN or not is_written) + is_written)
    aliases = {each.alias_info is not None for each in func._schema.returns}
    return total if aliases == {True} else total + sum(map(_stored, outputs))


def _stored(tensor: Tensor) -> int:
    """Bytes of the elements on the card, those of an expanded dimension once."""
    if not _on_card(tensor):
        return 0
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return prod(size for size, stride in sizes if stride or not size) * tensor.element_size()


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


def _on_card(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"
