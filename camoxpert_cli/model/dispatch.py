"""Distribute images to experts, and add up what the experts return, with gradients in as few passes as possible.

Notation: B images, K experts selected per image; `images` and `pairs` are those of `routes.Dispatch`. Features are
(B, H, W, C), those of pairs (B * K, H, W, C), sorted by expert. Gradients are sums in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def copies_of(features: Tensor, images: Tensor) -> Tensor:
    """Return the features of the image of each pair."""
    copies: Tensor = _Copies.apply(features, images)
    return copies


def add_weighted(features: Tensor, results: Tensor, weights: Tensor, images: Tensor, pairs: Tensor) -> Tensor:
    """Add to each image's features the `results` of its K pairs, multiplied by its `weights` (B, K)."""
    total: Tensor = _AddWeighted.apply(features, results, weights, images, pairs)
    return total


class _Copies(Function):
    @staticmethod
    def forward(context: Any, features: Tensor, images: Tensor) -> Tensor:
        context.save_for_backward(images)
        context.batch = len(features)
        return features.index_select(0, images)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (images,) = context.saved_tensors
        # The transpose of index_select. As a product it is one pass, which index_add is not, and needs no atomics.
        selection = _is_image(images, context.batch).t().to(gradient.dtype)
        return (selection @ gradient.flatten(1)).view(context.batch, *gradient.shape[1:]), None


class _AddWeighted(Function):
    @staticmethod
    def forward(
        context: Any, features: Tensor, results: Tensor, weights: Tensor, images: Tensor, pairs: Tensor
    ) -> Tensor:
        context.save_for_backward(results, weights, images, pairs)
        # Not one product over the whole batch, in which 0 * infinity would carry one image's overflow into the others.
        of_image = results.index_select(0, pairs.flatten()).view(*pairs.shape, -1)
        own = features.to(results.dtype).flatten(1).unsqueeze(1)
        return torch.baddbmm(own, weights.to(results.dtype).unsqueeze(1), of_image).view(features.shape)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        results, weights, images, pairs = context.saved_tensors
        gradient = gradient.contiguous()
        batch, height = gradient.shape[:2]
        is_image = _is_image(images, batch)  # (B * K, B)
        of_pairs = torch.zeros_like(images, dtype=weights.dtype).scatter_(0, pairs.flatten(), weights.flatten())
        factors = (is_image * of_pairs.unsqueeze(1)).to(gradient.dtype)
        of_results = (factors @ gradient.flatten(1)).view(results.shape)
        # The products of each pair with all images, of which one is needed, read everything once. They are summed line
        # by line, so that in half precision no sum over all pixels can overflow.
        lines = gradient.view(batch, height, -1).permute(1, 2, 0)
        products = results.view(len(images), height, -1).transpose(0, 1) @ lines
        of_weights = (products.sum(dim=0, dtype=weights.dtype) * is_image).sum(dim=1)
        return gradient, of_results, of_weights[pairs], None, None


def _is_image(images: Tensor, batch: int) -> Tensor:
    return images.unsqueeze(1) == torch.arange(batch, device=images.device)
