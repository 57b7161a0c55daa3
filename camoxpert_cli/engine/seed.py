"""Randomness as a function of where a run stands, not of how it came there."""

from __future__ import annotations

import numpy as np
import torch


def seed_weights(seed: int) -> None:
    """Before the network is built."""
    torch.manual_seed(seed)


def seed_step(seed: int, epoch: int, sample: int, rank: int = 0) -> None:
    """Before each batch: dropout then depends on the seed and the batch's place alone, so a resumed run repeats it.

    The images of another `rank` are others, and so is what is dropped.
    """
    place = [seed, epoch, sample] + ([rank] if rank else [])
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
