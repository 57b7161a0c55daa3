"""A GPU that is not there: tensors without data on "cuda:0", on which a training step runs as on a card.

torch's fake tensors carry shapes, dtypes and strides through every operation, and have no values. What the host reads
is known where it follows from constants: experts are chosen as `model.routing.spread` does, whatever the gates say, and
small integers, and floats on the CPU, are computed beside the fake ones. Any other float reads as 0, any other
comparison as true. The backward pass is that of `tests.helpers.python_backward`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from tests.helpers.python_backward import backward, noting_what_materializes

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
        stack.enter_context(patch.object(torch._C, "_select_conv_backend", _as_with_cudnn))
        # Optimizers and norms take their many tensors at once only if these are of a type that they know.
        stack.enter_context(patch.object(optimizers, "_foreach_supported_types", supported))
        stack.enter_context(patch.object(clipping, "_has_foreach_support", lambda _, device: device.type == "cuda"))
        stack.enter_context(noting_what_materializes())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(_Values())
        yield


_C: Any = torch._C
_select_backend, _BACKENDS = _C._select_conv_backend, _C._ConvBackend


def _as_with_cudnn(*args: Any, **kwargs: Any) -> Any:
    """The backend of a convolution, which decides its memory format; without a card, torch has none for bfloat16."""
    found, backends = _select_backend(*args, **kwargs), _BACKENDS
    return backends.Cudnn if found in (backends.Slow2d, backends.SlowDilated2d) else found


class _Values(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the values of small integers, and answers reads."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _READ:
            return self._answer(args[0])
        inputs = _tensors((args, kwargs))
        values = [self._value(each) for each in inputs]  # before what is written in place
        result = func(*args, **kwargs)
        if func is _aten.topk.default:
            self.known[result[1]] = _spread(result[1].shape, args[0].shape[-1])
        else:
            self._follow((func, args, kwargs), inputs, values, _tensors(result))
        return result

    def _answer(self, tensor: Tensor) -> Any:
        value = self._value(tensor)
        if value is not None:
            with unset_fake_temporarily():
                return value.item()
        if tensor.dtype is torch.bool:
            return True
        if tensor.dtype in _WHOLE:
            raise ValueError(f"the host reads a value of {tensor.dtype} that depends on data")
        return 0.0

    def _follow(self, call: Any, inputs: list[Tensor], values: list[Tensor | None], outputs: list[Tensor]) -> None:
        """Compute the outputs of a call, and what it writes in place, where all its inputs are known."""
        func, args, kwargs = call
        both = (*inputs, *outputs)
        is_followed = any(each.dtype in _WHOLE for each in both) or all(each.device.type == "cpu" for each in both)
        if not both or not is_followed or any(each.numel() > _MOST_KNOWN for each in both):
            return
        if any(each is None for each in values) or not (inputs or func in _CONSTANTS):
            for each in outputs:  # written in place with what is not known
                self.known.pop(each, None)
            return
        of_input = {id(each): value for each, value in zip(inputs, values, strict=True)}

        def on_cpu(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return of_input[id(leaf)]
            return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

        with unset_fake_temporarily(), torch.no_grad():
            found = _tensors(func(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs)))
        for output, value in zip(outputs, found, strict=True):
            if isinstance(output, FakeTensor):
                self.known[output] = value

    def _value(self, tensor: Tensor) -> Tensor | None:
        if not isinstance(tensor, FakeTensor):
            return tensor
        if tensor not in self.known and tensor.constant is not None:
            self.known[tensor] = tensor.constant.clone()
        return self.known.get(tensor)


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


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
