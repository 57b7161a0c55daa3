"""Random images and masks for measurements and self-tests, where the content does not matter."""

from __future__ import annotations

import torch
from torch import Tensor


def noise(
    count: int, side: int, device: torch.device, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return images (count, 3, side, side) and masks (count, 1, side, side), uint8 like those of the loader.

    A quarter of each image is object.
    """
    images = torch.randint(256, (count, side, side, 3), dtype=torch.uint8, device=device, generator=generator)
    masks = torch.zeros(count, 1, side, side, dtype=torch.uint8, device=device)
    masks[..., : side // 2, : side // 2] = 1
    return images.permute(0, 3, 1, 2), masks
