"""Which part of a training step an operation belongs to: told by the code that called it.

Forward by the innermost function on the stack that belongs to a part; backward by the part whose forward pass made the
node of autograd's graph.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

PARTS = (
    "backbone",
    "gates and routing",
    "experts",
    "decoder and heads",
    "losses",
    "optimizer",
    "gradient norm, scaler",
    "EMA",
    "the rest",
)
_REST = PARTS[-1]
# The end of a file's path, and its part.
_FILES = {
    "camoxpert_cli/model/backbone.py": "backbone",
    "camoxpert_cli/model/normalize.py": "backbone",
    "camoxpert_cli/model/enhancement.py": "gates and routing",
    "camoxpert_cli/model/moe.py": "gates and routing",
    "camoxpert_cli/model/routing.py": "gates and routing",
    "camoxpert_cli/model/routes.py": "gates and routing",
    "camoxpert_cli/model/dispatch.py": "gates and routing",
    "camoxpert_cli/model/experts.py": "experts",
    "camoxpert_cli/model/camoxpert.py": "decoder and heads",
    "camoxpert_cli/model/decoder.py": "decoder and heads",
    "camoxpert_cli/losses.py": "losses",
    "camoxpert_cli/engine/step.py": "losses",
    "camoxpert_cli/engine/ema.py": "EMA",
    "camoxpert_cli/parallel/gradients.py": "gradient norm, scaler",
    "torch/optim/adamw.py": "optimizer",
    "torch/optim/adam.py": "optimizer",
    "torch/optim/optimizer.py": "optimizer",
    "torch/nn/utils/clip_grad.py": "gradient norm, scaler",
    "torch/amp/grad_scaler.py": "gradient norm, scaler",
}
# Of the plain network, whose parts are in one file: the class of a method, or the function.
_OF_REFERENCE = {
    "ReferenceCamoXpert": "decoder and heads",
    "DecoderBlock": "decoder and heads",
    "MixtureOfExperts": "gates and routing",
    "GateBlock": "gates and routing",
    "reference_loss": "losses",
    "balance_loss": "losses",
    "edge_strength": "losses",
}


def calling_part() -> str:
    """The part whose code is at work."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if (part := _part_of(frame)) is not None:
            return part
        frame = frame.f_back
    return _REST


def _part_of(frame: FrameType) -> str | None:
    path = frame.f_code.co_filename
    owner = frame.f_locals.get("self") if path.endswith("reference_network.py") else None
    return _named(path, frame.f_code.co_name if owner is None else type(owner).__name__)


def _named(path: str, name: str) -> str | None:
    if "/timm/" in path:
        return "backbone"
    if path.endswith("reference_network.py"):
        return "experts" if name.endswith("Expert") else _OF_REFERENCE.get(name)
    return next((part for end, part in _FILES.items() if path.endswith(end)), None)


class Tagging(TorchFunctionMode):
    """Notes at each new node of autograd's graph which part made it; `part_of_node` tells."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        _tag(each.grad_fn for each in tree_leaves(result) if isinstance(each, Tensor))
        return result

    def __enter__(self) -> Tagging:
        self._hook = nn.modules.module.register_module_forward_hook(_tag_module)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._hook.remove()


def _tag_module(module: nn.Module, inputs: Any, result: Any) -> None:
    path = getattr(sys.modules[type(module).__module__], "__file__", None) or ""
    nodes = (each.grad_fn for each in tree_leaves(result) if isinstance(each, Tensor))
    _tag(nodes, _named(path, type(module).__name__))


def _tag(nodes: Iterable[Any], part: str | None = None) -> None:
    stack = [node for node in nodes if node is not None and "part" not in node.metadata]
    if stack:
        part = part or calling_part()
    while stack:
        node = stack.pop()
        if "part" in node.metadata:
            continue
        node.metadata["part"] = part
        stack += [following for following, _ in node.next_functions if following is not None]


def part_of_node(node: Any) -> str:
    return str(node.metadata.get("part", _REST))
