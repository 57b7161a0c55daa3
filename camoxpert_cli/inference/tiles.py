"""Predicts an image in overlapping tiles, so that an object that is small in a large image keeps its detail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.inference.batches import batches
from camoxpert_cli.inference.predictions import as_input, device_of, logits_of_views, probability_of
from camoxpert_cli.model.camoxpert import CamoXpert


@dataclass(frozen=True)
class Span:
    """The pixels of a row or column that a tile covers, and their weights, float32 (N,).

    The weights of all spans of a pixel add up to one.
    """

    pixels: slice
    weights: Tensor


def spans(length: int, side: int) -> list[Span]:
    """Divide a row of `length` pixels into spans of `side` pixels that overlap by at least half of it.

    So an object of up to half a tile is complete in at least one. A row that is no longer than a tile is one span. The
    weights of a span are a raised cosine, which falls to zero at its ends, where the network sees least around a pixel;
    so predictions of neighboring tiles blend without a seam.
    """
    side = min(side, length)
    steps = -(-(length - side) // (side - side // 2))
    starts = [(length - side) * step // max(1, steps) for step in range(steps + 1)]
    window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + side] += window
    return [
        Span(slice(start, start + side), torch.from_numpy(window / total[start : start + side]).float())
        for start in starts
    ]


def tiled_probability(
    network: CamoXpert,
    image: NDArray[np.uint8],
    size: int,
    side: int,
    dtype: torch.dtype | None,
    tta: Tta = NO_TTA,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Compute the probability map of an RGB image (H, W, 3): float32 (H, W) in 0..1, on the CPU.

    The network sees each tile, of `side` pixels a side, at its input `size`, with `dtype` and `tta` as in
    `logits_of_views`. `tell` is called with the number of tiles that are done, and of all. Besides the image and its
    prediction, memory is needed for a batch of tiles, however large the image is.
    """
    height, width = image.shape[:2]
    tiles = [(rows, columns) for rows in spans(height, side) for columns in spans(width, side)]
    device = device_of(network)
    blended = torch.zeros(height, width)
    done = 0
    for batch in batches(tiles, size, device):
        inputs = [as_input(image[rows.pixels, columns.pixels], size) for rows, columns in batch]
        views = logits_of_views(network, torch.stack(inputs).to(device), dtype, tta)
        for index, (rows, columns) in enumerate(batch):
            seen = probability_of(views, index, (len(rows.weights), len(columns.weights))).cpu()
            blended[rows.pixels, columns.pixels] += seen.mul_(rows.weights[:, None]).mul_(columns.weights)
        done += len(batch)
        tell(done, len(tiles))
    return blended.clamp_(max=1)  # rounding may add up to a little more
