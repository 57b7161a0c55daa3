"""The loss terms, each as one value per image, so that a mean over images is exact however a batch is split.

Notation: B images, H x W pixels. Logits and masks are (B, 1, H, W) float32; masks are 0 or 1. Call these functions
outside autocast: their sums overflow in half precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BCE_WEIGHT = 5.0
IOU_WEIGHT = 3.0
EDGE_WEIGHT = 2.0
BALANCE_WEIGHT = 0.1
DEEP_WEIGHT = 0.4

_SMOOTH = 1e-5


def bce_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute binary cross-entropy, mean over pixels: (B,)."""
    return F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2, 3))


def iou_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute one minus the soft intersection over union: (B,), 0 to 1.

    For an empty mask it is practically 1 with a vanishing gradient whatever is predicted, unless that is less than
    1e-4 pixels in all: the other terms, above all cross-entropy, teach to predict nothing there.
    """
    probability = logits.sigmoid()
    intersection = (probability * masks).sum((1, 2, 3))
    union = probability.sum((1, 2, 3)) + masks.sum((1, 2, 3)) - intersection
    return 1 - (intersection + _SMOOTH) / (union + _SMOOTH)


def edge_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute the squared difference in edge strength between prediction and mask, mean over pixels: (B,)."""
    return (_edge_strength(logits.sigmoid()) - _edge_strength(masks)).square().mean((1, 2, 3))


def deep_loss(deep_logits: tuple[Tensor, ...], masks: Tensor) -> Tensor:
    """Compute the mean cross-entropy of the side outputs against the mask, resized with soft values: (B,)."""
    terms = [
        bce_loss(
            logits.to(masks.dtype), F.interpolate(masks, size=logits.shape[-2:], mode="bilinear", align_corners=False)
        )
        for logits in deep_logits
    ]
    return torch.stack(terms).mean(dim=0)


def _edge_strength(x: Tensor) -> Tensor:
    # Built on the device: copying Python numbers there would make the host wait.
    step = torch.arange(-1, 2, dtype=x.dtype, device=x.device)
    sobel_x = torch.outer(2 - step.abs(), step)
    kernels = torch.stack([sobel_x, sobel_x.t()]).unsqueeze(1)  # (2, 1, 3, 3)
    if x.device.type == "cpu":
        # A product with each pixel's neighborhood, since CPUs convolve several channels at a time and here is one. A
        # GPU would gather the neighborhoods image by image.
        gradients = (kernels.flatten(1) @ F.unfold(x, 3, padding=1)).view(len(x), 2, *x.shape[2:])
    else:
        gradients = F.conv2d(x, kernels, padding=1)
    return (gradients.square().sum(dim=1, keepdim=True) + _SMOOTH).sqrt()
