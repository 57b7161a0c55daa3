"""Determines which samples form which batch: a pure function of seed, epoch and position.

The position is the number of samples that all ranks together have consumed in the epoch. An epoch consists of all
images with an object and, spread evenly among them, some of the images without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from camoxpert_cli import console
from camoxpert_cli.errors import DataError

SampleKey: TypeAlias = tuple[int, int]
"""(epoch, index into the training pairs)

For an image without an object, the first is not the epoch but the pass over these images, from 0: an epoch may contain
the same one more than once, and each key determines an augmentation.
"""

# Keep the seeds of the sample orders separate from each other and from those of the augmentation.
_STREAM, _NEGATIVES_STREAM = 0, 2


class Negatives(NamedTuple):
    """How many of the training images have no object, which are the last ones, and how many of them an epoch has."""

    available: int = 0
    per_epoch: int = 0


NO_NEGATIVES = Negatives()


def negatives_per_epoch(available: int, count: int, share: float | None, most: float) -> int:
    """Return how many images without an object an epoch has next to `count` images with one.

    They are `share` (0 up to, but not including, 1) of all, repeated if `available` are not enough; without a share as
    many as there are, but at most the share `most`.
    """
    if not available:
        return 0
    wanted = most if share is None else share
    number = round(count * wanted / (1 - wanted))
    return min(number, available) if share is None else number


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the indices 0 ... count-1 in this epoch's order, int64 (count,); `seed` and `epoch` are >= 0."""
    return _shuffled(count, _STREAM, seed, epoch)


def epoch_keys(count: int, seed: int, epoch: int, negatives: Negatives = NO_NEGATIVES) -> NDArray[np.int64]:
    """Return the keys of an epoch's samples in order, int64 (count + negatives.per_epoch, 2).

    `count` images with an object come in the order of `epoch_order`. Any number of consecutive samples contains the
    share of images without an object, rounded down or up. Passes over these images, each in another order, continue
    from epoch to epoch.
    """
    order = epoch_order(count, seed, epoch)
    total = count + negatives.per_epoch
    is_negative = np.diff(np.arange(total + 1) * negatives.per_epoch // total) > 0
    keys = np.empty((total, 2), np.int64)
    keys[~is_negative] = np.stack([np.full_like(order, epoch), order], axis=1)
    if negatives.per_epoch:
        turns = epoch * negatives.per_epoch + np.arange(negatives.per_epoch)
        passes, places = np.divmod(turns, negatives.available)
        first, last = int(passes[0]), int(passes[-1])
        orders = [_shuffled(negatives.available, _NEGATIVES_STREAM, seed, each) for each in range(first, last + 1)]
        keys[is_negative] = np.stack([passes, count + np.stack(orders)[passes - first, places]], axis=1)
    return keys


def _shuffled(count: int, *seeds: int) -> NDArray[np.int64]:
    return np.random.default_rng(np.random.SeedSequence(seeds)).permutation(count)


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
    """The batches of one rank as lists of keys, from a position in an epoch to its end.

    Over all ranks, each sample of `epoch_keys` occurs exactly once, and all ranks have the same number of batches; if
    the last batch has fewer samples than ranks, some ranks get an empty list. Raises DataError for fewer than `world`
    images with an object, `count`.
    """

    def __init__(
        self,
        count: int,
        per_rank: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        negatives: Negatives = NO_NEGATIVES,
    ) -> None:
        if count < world:
            raise DataError(
                f"{console.counted(count, 'training image')} for {world} GPUs, expected at least one per GPU",
                f"use fewer GPUs with --gpus {max(count, 1)}, or add training images",
            )
        self.count, self.per_rank, self.seed, self.rank, self.world = count, per_rank, seed, rank, world
        self.negatives = negatives
        self.start_at(0)

    def start_at(self, epoch: int, position: int = 0, end: int | None = None) -> None:
        """Make the next iteration yield this epoch's samples from `position` to `end`, counted over all ranks.

        Without `end`, it yields the rest of the epoch.
        """
        whole = self.count + self.negatives.per_epoch
        self.epoch, self.position, self.end = epoch, position, whole if end is None else end

    def sizes(self) -> list[int]:
        """Return the number of samples over all ranks in each remaining batch, which each step adds to the position."""
        return batch_sizes(self.end - self.position, self.per_rank, self.world)

    def __len__(self) -> int:
        return len(self.sizes())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        start = self.position
        keys = epoch_keys(self.count, self.seed, self.epoch, self.negatives)
        for size in self.sizes():
            own = own_share(size, self.rank, self.world)
            yield [(int(turn), int(index)) for turn, index in keys[start + own.start : start + own.stop]]
            start += size
