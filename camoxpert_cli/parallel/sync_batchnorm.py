"""BatchNorm with the statistics of all ranks' images: torch's SyncBatchNorm, which is for GPUs, one a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn


def synchronise(network: nn.Module) -> None:
    """Have all BatchNorm layers in `network`, in training mode, normalise over the images of all ranks.

    They keep their parameters, buffers and names: a state dict does not tell, and in eval mode, or without other ranks,
    they compute what they did. Gradients of their weights and biases are those of a rank's own images, which their sum
    over ranks completes.
    """
    # timm's, because torch's own takes the activation from layers that are BatchNorm and activation in one.
    convert_sync_batchnorm(network)


@contextmanager
def within_group(network: nn.Module, group: dist.ProcessGroup | None) -> Iterator[None]:
    """Synchronised layers of `network` look at the images of the ranks in `group` alone; None stands for all ranks.

    The backward pass belongs inside as well: gradient checkpointing runs the layers a second time.
    """
    norms = [each for each in network.modules() if isinstance(each, nn.SyncBatchNorm)]
    for norm in norms:
        norm.process_group = group
    try:
        yield
    finally:
        for norm in norms:
            norm.process_group = None  # a network with a group cannot be copied
