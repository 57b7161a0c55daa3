"""The CPU in the place of a GPU for each process, as far as torch's SyncBatchNorm can tell."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, library, nn
from torch.nn.parallel import DistributedDataParallel

from camoxpert_cli.engine import run
from camoxpert_cli.launch import autobatch, decide
from camoxpert_cli.parallel.device import Placement

CPU = torch.device("cpu")
# What every process runs when it starts to see one GPU and compute on the CPU. Which card that is, GPU_OF_RANK says:
# "01" for rank 0 the first and rank 1 the second, "00" for both the first.
ONE_VISIBLE_GPU = """
import os
from types import SimpleNamespace

import torch

card = os.environ["GPU_OF_RANK"][int(os.environ.get("RANK", "0"))]
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_properties = lambda device: SimpleNamespace(uuid=f"GPU-{card}")

from camoxpert_cli.engine import run
from camoxpert_cli.launch import autobatch

honest = run.own_device


def own_device(placement, world):
    assert honest(placement, world) == torch.device("cuda", 0)
    return torch.device("cpu")


run.own_device = own_device
autobatch.is_measured = lambda device: False
"""
# Without annotations.
_LIBRARY: Any = library.Library


def place_on_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Runs are made ready for so many GPUs, a process for each, and compute on the CPU."""
    devices = tuple(torch.device("cuda", number) for number in range(count))
    placement = Placement("ddp" if count > 1 else "single", devices, count)
    monkeypatch.setattr(decide, "place", lambda settings, processes, sync_batchnorm: placement)
    monkeypatch.setattr(decide, "is_undecided", lambda settings, placement: False)
    monkeypatch.setattr(autobatch, "is_measured", lambda device: False)
    monkeypatch.setattr(run, "own_device", lambda placement, world: CPU)


def run_sync_batchnorm(monkeypatch: pytest.MonkeyPatch) -> object:
    """torch's SyncBatchNorm takes inputs on the CPU while what is returned lives.

    Its kernels are for GPUs; these are the same sums. What it exchanges between ranks, and which, is all its own.
    """
    honest = nn.SyncBatchNorm.forward

    def forward(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
        # Beside the devices that torch knows it takes one that others name.
        with patch("torch._C._get_privateuse1_backend_name", lambda: "cpu"):
            return honest(norm, x)

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", forward)
    # It refuses such layers on the CPU, and does nothing else.
    monkeypatch.setattr(DistributedDataParallel, "_passing_sync_batchnorm_handle", lambda ddp, module: None)
    kernels = _LIBRARY("aten", "IMPL")
    for kernel in (_stats, _gather_stats_with_counts, _elemt, _backward_reduce, _backward_elemt):
        kernels.impl(f"batch_norm{kernel.__name__}", kernel, "CPU")
    return kernels


def _stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim=_all_but_channels(x), correction=0)
    return mean, (variance + eps).rsqrt()


def _gather_stats_with_counts(
    x: Tensor,
    means: Tensor,
    scales: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    shares = (counts / counts.sum()).view(-1, 1)
    mean = (means * shares).sum(dim=0)
    variance = ((scales**-2 - eps + (means - mean) ** 2) * shares).sum(dim=0)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (variance + eps).rsqrt()


def _elemt(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, scale: Tensor, eps: float) -> Tensor:
    y = (x - _beside(mean, x)) * _beside(scale, x)
    y = y if weight is None else y * _beside(weight, x)
    return y if bias is None else y + _beside(bias, x)


def _backward_reduce(
    gradient: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None, *_: bool
) -> tuple[Tensor, ...]:
    dims = _all_but_channels(x)
    sums, moments = gradient.sum(dims), (gradient * (x - _beside(mean, x))).sum(dims)
    return sums, moments, moments * scale, sums.clone()


def _backward_elemt(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    sums: Tensor,
    moments: Tensor,
    counts: Tensor,
) -> Tensor:
    count = counts.sum()
    of_variance = (x - _beside(mean, x)) * _beside(moments * scale**2 / count, x)
    result = (gradient - _beside(sums / count, x) - of_variance) * _beside(scale, x)
    return result if weight is None else result * _beside(weight, x)


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


def _beside(channels: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), as many dimensions as `x` has."""
    return channels.view(1, -1, *[1] * (x.dim() - 2))
