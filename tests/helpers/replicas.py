"""torch's DataParallel on the CPU: its real `replicate`, and its way of scattering, gathering and summing gradients."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.parallel import replicate

from camoxpert_cli.engine.run import Run
from camoxpert_cli.parallel.strategy import Dp
from camoxpert_cli.parallel.world import World

# `import torch.nn.parallel.replicate` gives the function of that name.
_MODULE = sys.modules["torch.nn.parallel.replicate"]


class _Broadcast(Function):
    """As torch's, which is for GPUs: copies of every parameter; gradients are summed, zeros where there was none."""

    @staticmethod
    def forward(context: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        context.parts = (count, len(tensors))
        copies = tuple(tensor.clone() for _ in range(count) for tensor in tensors)
        frozen = [not needed for needed in context.needs_input_grad[1:]] * count
        context.mark_non_differentiable(*(copy for copy, is_frozen in zip(copies, frozen, strict=True) if is_frozen))
        return copies

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count, tensors = context.parts
        return None, *(torch.stack(gradients[at::tensors][:count]).sum(dim=0) for at in range(tensors))


class Replicas(nn.Module):
    """Calls `count` replicas of a module on chunks of a batch, each in a thread, and joins their outputs."""

    def __init__(self, module: nn.Module, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.module, self.count = module, count

        def broadcast(tensors: list[Tensor], devices: list[int], detach: bool = False) -> list[list[Tensor]]:
            if not tensors:
                return []
            if detach:
                # The first replica has the module's own buffers, as on the first GPU.
                return [tensors, *([tensor.clone() for tensor in tensors] for _ in devices[1:])]
            copies = _Broadcast.apply(len(devices), *tensors)
            return [list(copies[at : at + len(tensors)]) for at in range(0, len(copies), len(tensors))]

        monkeypatch.setattr(_MODULE, "_broadcast_coalesced_reshape", broadcast)
        monkeypatch.setattr(_MODULE, "_get_device_index", lambda device, optional: device)

    def forward(self, *inputs: Tensor) -> Any:
        chunks = list(zip(*(each.chunk(self.count) for each in inputs), strict=True))
        replicas = replicate(self.module, range(len(chunks)))
        outputs: list[Any] = [None] * len(chunks)
        threads = [
            threading.Thread(target=self._call, args=(outputs, at, replica, chunk))
            for at, (replica, chunk) in enumerate(zip(replicas, chunks, strict=True))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return type(outputs[0])._make(torch.cat(parts) for parts in zip(*outputs, strict=True))

    @staticmethod
    def _call(outputs: list[Any], at: int, replica: nn.Module, chunk: tuple[Tensor, ...]) -> None:
        outputs[at] = replica(*chunk)


def use_replicas(run: Run, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `run` compute by DataParallel with so many replicas on the CPU."""
    monkeypatch.setattr(Dp, "_wrap", lambda strategy: Replicas(strategy.step, count, monkeypatch))
    run.strategy = Dp(run.strategy.step, run.state.network, [torch.device("cpu")] * count, World())
