"""BatchNorm over the images of all ranks: torch's SyncBatchNorm, which works on GPUs with one process per GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn


def synchronise(network: nn.Module) -> None:
    """Make all BatchNorm layers in `network` normalize over the images of all ranks in training mode.

    They keep their parameters, buffers and names: the state dict is the same, and in eval mode, or with a single rank,
    so is the output. Gradients of their weights and biases are those of a rank's own images until they are summed over
    ranks.
    """
    # timm's version, because torch's own drops the activation of layers that combine BatchNorm and activation.
    convert_sync_batchnorm(network)


@contextmanager
def within_group(network: nn.Module, group: dist.ProcessGroup | None) -> Iterator[None]:
    """Restrict the synchronized layers of `network` to the ranks in `group`; None means all ranks.

    Keep it active during the backward pass: activation checkpointing runs the layers again.
    """
    norms = [each for each in network.modules() if isinstance(each, nn.SyncBatchNorm)]
    for norm in norms:
        norm.process_group = group
    try:
        yield
    finally:
        for norm in norms:
            norm.process_group = None  # a network with a group cannot be copied
