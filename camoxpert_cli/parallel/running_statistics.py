"""BatchNorm's running statistics on several ranks, each of which normalizes with the statistics of its own images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningStatistics:
    """The running statistics of a network, kept the same on all ranks for validation and checkpoints.

    Only of layers in training mode; frozen ones do not change theirs.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]

    @torch.no_grad()
    def count_missed_batch(self) -> None:
        """Count a batch that had no images for this rank, as the other ranks do."""
        counts = [each.num_batches_tracked for each in self._training() if each.num_batches_tracked is not None]
        if counts:
            torch._foreach_add_(counts, 1)

    @torch.no_grad()
    def weighted(self, images: int) -> list[Tensor]:
        """Multiply the statistics by the `images` that this rank has seen of a step, and return them to be summed."""
        kept = [buffer for each in self._training() for buffer in (each.running_mean, each.running_var)]
        tracked = [buffer for buffer in kept if buffer is not None]
        if tracked:
            torch._foreach_mul_(tracked, float(images))
        return tracked

    @torch.no_grad()
    def divide(self, tensors: list[Tensor], images: int) -> None:
        """Divide the sums of what `weighted` returned on all ranks by the `images` of the step over all ranks."""
        if tensors:
            torch._foreach_div_(tensors, float(images))

    def _training(self) -> list[nn.modules.batchnorm._BatchNorm]:
        return [each for each in self._layers if each.training]
