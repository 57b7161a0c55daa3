"""Computes the predictions that are scored and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camoxpert_cli.config.parse import NO_TTA, Tta
from camoxpert_cli.config.schema import SMALLEST_SIDE
from camoxpert_cli.data.resizing import resize_image
from camoxpert_cli.model.backbone import Normalization
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.layers import resize
from camoxpert_cli.model.normalize import Normalize
from camoxpert_cli.parallel.cuda_errors import is_out_of_memory

# A pixel with at least this probability is object.
THRESHOLD = 0.5
# Rows of a prediction converted to gray at a time: a large prediction needs more memory than the network.
_ROWS = 1024
# The stride of the network's coarsest feature maps.
_COARSEST_STRIDE = 32


def device_of(network: CamoXpert) -> torch.device:
    """Return the device of a network's weights."""
    return next(network.parameters()).device


def as_input(image: NDArray[np.uint8], size: int) -> Tensor:
    """Resize an RGB image (H, W, 3) to the network's input size: uint8 (3, S, S)."""
    return torch.from_numpy(resize_image(image, size)).permute(2, 0, 1)


@torch.no_grad()
def logits_of_views(network: CamoXpert, images: Tensor, dtype: torch.dtype | None, tta: Tta = NO_TTA) -> list[Tensor]:
    """Compute the logits of uint8 images (B, 3, S, S): float32 (B, 1, s, s) for each view, flipped back.

    Without `tta` there is one view. With it, a view's side is rounded to a multiple of 32, at least 64; equal sides
    count once. `dtype` is the autocast dtype; None computes in float32. A batch for which a GPU has too little memory
    is computed in two halves.
    """
    normalized = _normalize(network.normalization, images.device)(images)
    side = (images.shape[-2], images.shape[-1])
    views = []
    for size in dict.fromkeys(_scaled(side, scale) for scale in tta.scales):
        view = resize(normalized, size)
        views.append(_logits(network, view, dtype))
        if tta.flip:
            views.append(_logits(network, view.flip(-1), dtype).flip(-1))
    return views


@torch.no_grad()
def probability_of(views: Sequence[Tensor], index: int, size: tuple[int, int]) -> Tensor:
    """Compute the probability map of image `index` of a batch from `logits_of_views`: float32 (H, W) of `size`, 0..1.

    Logits are resized, then converted to probabilities. Several views are averaged as probabilities, each resized
    first; in a mean of logits, which reach ±15, one confident view would dominate all others.
    """
    probability: Tensor | None = None
    for view in views:
        logits = view[index : index + 1]
        resized = resize(logits, size)
        # In place to save memory, but not where the logits are still needed.
        seen = (resized.sigmoid() if resized is logits else resized.sigmoid_())[0, 0]
        probability = seen if probability is None else probability.add_(seen)
    assert probability is not None
    return probability if len(views) == 1 else probability.div_(len(views))


def predict_probabilities(
    network: CamoXpert,
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    dtype: torch.dtype | None,
    tta: Tta = NO_TTA,
) -> list[Tensor]:
    """Compute the probability map of each of the uint8 images (B, 3, S, S), at its size of `sizes`.

    `dtype` and `tta` as in `logits_of_views`.
    """
    views = logits_of_views(network, images, dtype, tta)
    return [probability_of(views, index, size) for index, size in enumerate(sizes)]


def grey_prediction(probability: Tensor) -> NDArray[np.uint8]:
    """Convert probabilities in 0..1 (H, W), on any device, to gray values 0..255 for a PNG: times 255, rounded.

    A value is above 127 if and only if the probability is at least 0.5.
    """
    return _levels(probability).cpu().numpy()


def grey_predictions(
    views: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
) -> Callable[[], list[NDArray[np.uint8]]]:
    """Start to copy the gray predictions of a batch, as of `grey_prediction`, from a GPU, all in one transfer.

    Returns a function that waits for them, but not for what the GPU is given later.
    """
    levels = [_levels(probability_of(views, index, size)) for index, size in enumerate(sizes)]
    if levels[0].device.type != "cuda":
        return lambda: [each.numpy() for each in levels]
    flat = torch.cat([each.flatten() for each in levels])
    host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
    host.copy_(flat, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(flat.device))

    def wait() -> list[NDArray[np.uint8]]:
        copied.synchronize()
        parts = torch.split(host, [height * width for height, width in sizes])
        return [part.view(size).numpy() for part, size in zip(parts, sizes, strict=True)]

    return wait


def _levels(probability: Tensor) -> Tensor:
    return torch.cat([(rows * 255).round().to(torch.uint8) for rows in torch.split(probability, _ROWS)])


@cache
def _normalize(statistics: Normalization, device: torch.device) -> Normalize:
    """Built once: moving its constants to a GPU makes the host wait."""
    return Normalize(statistics).to(device)


def _logits(network: CamoXpert, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    try:
        with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
            return network(images).logits.float()
    except RuntimeError as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
    # Here, since the error references the tensors of the failed pass.
    if images.device.type == "cuda":
        torch.cuda.empty_cache()
    return torch.cat([_logits(network, part, dtype) for part in images.tensor_split(2)])


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """The scaled size, rounded to the stride; scale 1 keeps any size."""
    if scale == 1:
        return size
    height, width = (max(SMALLEST_SIDE, _COARSEST_STRIDE * round(side * scale / _COARSEST_STRIDE)) for side in size)
    return height, width
