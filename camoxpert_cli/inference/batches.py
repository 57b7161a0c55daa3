"""Splits images, or tiles of one, into batches for the network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

import torch

_Item = TypeVar("_Item")

# The most pixels, and images, of a batch. More per batch is no faster: on a CPU from 320 pixels a side.
_CPU_PIXELS, _CPU_IMAGES = 2**18, 16
_GPU_PIXELS, _GPU_IMAGES = 2**22, 32


def batches(images: Sequence[_Item], size: int, device: torch.device) -> Iterator[Sequence[_Item]]:
    """Split images into batches of at most so many pixels at the network's input size that memory is no concern."""
    pixels, most = (_GPU_PIXELS, _GPU_IMAGES) if device.type == "cuda" else (_CPU_PIXELS, _CPU_IMAGES)
    count = max(1, min(most, pixels // size**2))
    return (images[at : at + count] for at in range(0, len(images), count))


def to_compute(images: Sequence[_Item], kept: Collection[_Item], size: int, device: torch.device) -> list[_Item]:
    """Return the images of all batches of which not every image is in `kept`.

    They are computed as a whole, because the last bits of a prediction may depend on what else is in its batch.
    """
    return [
        image for batch in batches(images, size, device) if not all(each in kept for each in batch) for image in batch
    ]
