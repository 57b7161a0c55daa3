"""Counts how weights are converted to another dtype."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Conversions(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """How many weights are converted, each by itself and together."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.weights = {id(weight) for weight in weights}
        self.single = self.together = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(function.overloadpacket).removeprefix("aten.")
        self.single += name == "_to_copy" and id(args[0]) in self.weights
        self.together += len(args[0]) if name == "_foreach_copy_" else 0
        return function(*args, **(kwargs or {}))
