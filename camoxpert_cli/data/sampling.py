"""Determines which samples form which batch: a pure function of seed, epoch and position.

The position is the number of samples that all ranks together have consumed in the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from camoxpert_cli import console
from camoxpert_cli.errors import DataError

SampleKey: TypeAlias = tuple[int, int]
"""(epoch, index into the training pairs)"""

# Keeps the seeds of the sample order separate from those of the augmentation.
_STREAM = 0


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the indices 0 ... count-1 in this epoch's order, int64 (count,); `seed` and `epoch` are >= 0."""
    return np.random.default_rng(np.random.SeedSequence((_STREAM, seed, epoch))).permutation(count)


def batch_sizes(left: int, per_rank: int, world: int = 1) -> list[int]:
    """Return the number of samples over all ranks in each batch until the `left` samples of an epoch are consumed.

    Each is `per_rank * world` except the last, which contains the remainder: the batches are those of a single rank
    with the same global batch size.
    """
    full, rest = divmod(left, per_rank * world)
    return [per_rank * world] * full + [rest] * (rest > 0)


def own_share(size: int, rank: int, world: int) -> range:
    """Return which of a batch's `size` samples, counted from 0, belong to `rank`; the last rank always has some."""
    return range(size * rank // world, size * (rank + 1) // world)


def ranks_with_samples(size: int, world: int) -> tuple[int, ...]:
    """Return the ranks that have samples of a batch of `size`: all of them, or as many as there are samples."""
    return tuple(rank for rank in range(world) if own_share(size, rank, world))


class EpochBatches(Sampler[list[SampleKey]]):
    """The batches of one rank as lists of keys (epoch, index), from a position in an epoch to its end.

    Over all ranks, each sample occurs exactly once, and all ranks have the same number of batches; if the last batch
    has fewer samples than ranks, some ranks get an empty list. Raises DataError for fewer than `world` samples.
    """

    def __init__(self, count: int, per_rank: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if count < world:
            raise DataError(
                f"{console.counted(count, 'training image')} for {world} GPUs, expected at least one per GPU",
                f"use fewer GPUs with --gpus {max(count, 1)}, or add training images",
            )
        self.count, self.per_rank, self.seed, self.rank, self.world = count, per_rank, seed, rank, world
        self.start_at(0)

    def start_at(self, epoch: int, position: int = 0, end: int | None = None) -> None:
        """Make the next iteration yield this epoch's samples from `position` to `end` (0 ... count, over all ranks).

        Without `end`, it yields the rest of the epoch.
        """
        self.epoch, self.position, self.end = epoch, position, self.count if end is None else end

    def sizes(self) -> list[int]:
        """Return the number of samples over all ranks in each remaining batch, which each step adds to the position."""
        return batch_sizes(self.end - self.position, self.per_rank, self.world)

    def __len__(self) -> int:
        return len(self.sizes())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, start = self.epoch, self.position
        order = epoch_order(self.count, self.seed, epoch)
        for size in self.sizes():
            own = own_share(size, self.rank, self.world)
            yield [(epoch, int(index)) for index in order[start + own.start : start + own.stop]]
            start += size
