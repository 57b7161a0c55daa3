"""Which samples make which batch: a pure function of seed, epoch and position.

The position is the number of samples of the epoch that all ranks together have consumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from camoxpert_cli.errors import DataError

SampleKey: TypeAlias = tuple[int, int]
"""(epoch, index into the training pairs)"""

# Keeps the seeds of the sample order apart from those of the augmentation.
_STREAM = 0


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The indices 0 ... count-1 in the order of this epoch, int64 (count,); `seed` and `epoch` are >= 0."""
    return np.random.default_rng(np.random.SeedSequence((_STREAM, seed, epoch))).permutation(count)


def batch_sizes(left: int, per_rank: int, world: int = 1) -> list[int]:
    """Samples over all ranks in each of the batches that consume the `left` samples of an epoch, in order.

    Each is `per_rank * world` but the last, which takes what is left. Every rank must have a sample in every batch,
    or it would stand still while the others wait for its gradients: where fewer than `world` samples would be left
    over, the batch before gives up some of its own or, with one sample a rank, takes them in. A rank's share is
    never above `per_rank`, or 2 where that is 1. Fewer than `world` samples make no batch at all.
    """
    whole = per_rank * world
    full, rest = divmod(left, whole)
    if rest >= world or rest == 0:
        return [whole] * full + [rest] * (rest > 0)
    if full == 0:
        return []
    last = [whole + rest - world, world] if per_rank > 1 else [whole + rest]
    return [whole] * (full - 1) + last


class EpochBatches(Sampler[list[SampleKey]]):
    """The batches of one rank as lists of keys (epoch, index), from a position in an epoch to the end of it.

    Over all ranks each sample comes exactly once. Where an epoch goes on with more ranks than it began with and
    fewer samples than ranks are left, those are passed over. Raises DataError for fewer than `world` samples.
    """

    def __init__(self, count: int, per_rank: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if count < world:
            raise DataError(
                f"{count} training pictures for {world} GPUs: each needs one at least",
                f"train on {max(count, 1)} with --gpus {max(count, 1)}, or give more pictures",
            )
        self.count, self.per_rank, self.seed, self.rank, self.world = count, per_rank, seed, rank, world
        self.start_at(0)

    def start_at(self, epoch: int, position: int = 0) -> None:
        """The next iteration yields this epoch from `position` on (0 ... count samples over all ranks)."""
        self.epoch, self.position = epoch, position

    def sizes(self) -> list[int]:
        """Samples over all ranks in each batch to come: what each step adds to the position."""
        return batch_sizes(self.count - self.position, self.per_rank, self.world)

    def __len__(self) -> int:
        return len(self.sizes())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, start = self.epoch, self.position
        order = epoch_order(self.count, self.seed, epoch)
        for size in self.sizes():
            first, end = (start + size * rank // self.world for rank in (self.rank, self.rank + 1))
            yield [(epoch, int(index)) for index in order[first:end]]
            start += size
