"""Computes the predictions that are scored and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.config.schema import SMALLEST_SIDE
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.layers import resize
from camoxpert_cli.model.normalize import Normalize

# A pixel with at least this probability is object.
THRESHOLD = 0.5
# Rows of a prediction converted to gray at a time: a large prediction needs more memory than the network.
_ROWS = 1024
# The stride of the network's coarsest feature maps.
_COARSEST_STRIDE = 32


@torch.no_grad()
def predict_probabilities(
    network: CamoXpert,
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    dtype: torch.dtype | None,
    tta: Tta = NO_TTA,
) -> list[Tensor]:
    """Compute probability maps from uint8 images (B, 3, S, S): one float32 (H, W) in 0..1 for each of `sizes`.

    Logits are resized, then converted to probabilities. With `tta`, a prediction is the mean of the probabilities of
    its views, each resized first; in a mean of logits, which reach ±15, one confident view would dominate all others. A
    view's side is rounded to a multiple of 32, at least 64; equal sides count once. `dtype` is the autocast dtype; None
    computes in float32.
    """
    normalized = Normalize(network.normalization).to(images.device)(images)
    predictions: list[Tensor] = []
    views = 0
    for logits in _logits_of_views(network, normalized, dtype, tta):
        logits = logits.clone()  # the network may keep its own; the operations below work in place to save memory
        seen = [resize(logits[index : index + 1], size)[0, 0].sigmoid_() for index, size in enumerate(sizes)]
        predictions = [total.add_(each) for total, each in zip(predictions, seen, strict=True)] if predictions else seen
        views += 1
    return predictions if views == 1 else [total.div_(views) for total in predictions]


def grey_prediction(probability: Tensor) -> NDArray[np.uint8]:
    """Convert probabilities in 0..1 (H, W), on any device, to gray values 0..255 for a PNG: times 255, rounded.

    A value is above 127 if and only if the probability is at least 0.5.
    """
    return torch.cat([(rows * 255).round().to(torch.uint8) for rows in torch.split(probability, _ROWS)]).cpu().numpy()


def _logits_of_views(network: CamoXpert, images: Tensor, dtype: torch.dtype | None, tta: Tta) -> Iterator[Tensor]:
    """Logits float32 (B, 1, h, w) of each view, flipped back to the orientation of the image."""
    side = (images.shape[-2], images.shape[-1])
    for size in dict.fromkeys(_scaled(side, scale) for scale in tta.scales):
        view = resize(images, size)
        yield _logits(network, view, dtype)
        if tta.flip:
            yield _logits(network, view.flip(-1), dtype).flip(-1)


def _logits(network: CamoXpert, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
        return network(images).logits.float()


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """The scaled size, rounded to the stride; scale 1 keeps any size."""
    if scale == 1:
        return size
    height, width = (max(SMALLEST_SIDE, _COARSEST_STRIDE * round(side * scale / _COARSEST_STRIDE)) for side in size)
    return height, width
