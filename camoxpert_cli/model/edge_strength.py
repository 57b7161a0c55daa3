"""Edge strength by Sobel and Laplacian filters, with a gradient that is finite where nothing has an edge."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_EPSILON = 1e-8
_HALF_PRECISION = (torch.float16, torch.bfloat16)


def edge_strength(x: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the strengths of the Sobel filter, of the Laplacian and of both combined, each (B, C, H, W) like `x`.

    `kernels` are those of Sobel's x and y and of the Laplacian (3, 1, 3, 3). With s and l what the filters find, the
    strengths are sqrt(sx^2 + sy^2 + 1e-8), |l| and sqrt(s^2 + l^2 + 1e-8).
    """
    channels = x.shape[1]
    edges = F.conv2d(x, kernels.repeat(channels, 1, 1, 1), padding=1, groups=channels)
    strengths: tuple[Tensor, Tensor, Tensor] = _Strengths.apply(edges.view(-1, channels, 3, *x.shape[2:]))
    return strengths


class _Strengths(Function):
    @staticmethod
    def forward(context: Any, edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sobel_x, sobel_y, laplacian = edges.unbind(2)
        sobel = _root_of_squares(sobel_x, sobel_y)
        gradient = _root_of_squares(sobel, laplacian)
        context.save_for_backward(edges, sobel, gradient)
        return sobel, laplacian.abs(), gradient

    @staticmethod
    @once_differentiable
    def backward(context: Any, of_sobel: Tensor, of_laplacian: Tensor, of_gradient: Tensor) -> Tensor:
        edges, sobel, gradient = context.saved_tensors
        # Quotients before products: none is larger than one, while 1 / gradient may overflow in half precision.
        of_sobel = torch.addcmul(of_sobel, of_gradient, sobel / gradient)
        of_edges = edges / sobel.unsqueeze(2)
        of_edges[:, :, :2].mul_(of_sobel.unsqueeze(2))
        laplacian = edges[:, :, 2]
        torch.mul(of_gradient, laplacian / gradient, out=of_edges[:, :, 2]).addcmul_(of_laplacian, laplacian.sign())
        return of_edges


def _root_of_squares(one: Tensor, two: Tensor) -> Tensor:
    """sqrt(one^2 + two^2 + 1e-8)."""
    if one.dtype in _HALF_PRECISION:  # where squares overflow at 256, and 1e-8 is zero
        return torch.hypot(torch.hypot(one, torch.tensor(_EPSILON**0.5, dtype=one.dtype)), two)
    return (one.square() + two.square() + _EPSILON).sqrt()
