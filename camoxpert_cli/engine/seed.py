"""Seed random numbers from a run's position, independent of how it got there."""

from __future__ import annotations

import numpy as np
import torch


def seed_weights(seed: int) -> None:
    """Seed the initial weights; call before the network is built."""
    torch.manual_seed(seed)


def seed_step(seed: int, epoch: int, sample: int, rank: int = 0) -> None:
    """Seed a batch: dropout then depends only on the seed and the batch's position, so a resumed run repeats it.

    Each `rank` has different images, and so a different seed.
    """
    place = [seed, epoch, sample] + ([rank] if rank else [])
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
