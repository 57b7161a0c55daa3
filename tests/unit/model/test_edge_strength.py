from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from camoxpert_cli.model.edge_strength import edge_strength
from camoxpert_cli.model.experts import EdgeExpert

HALF_PRECISIONS = [torch.bfloat16, torch.float16]


def kernels(dtype: torch.dtype) -> Tensor:
    expert = EdgeExpert(4)
    return torch.cat([expert.sobel_x_base, expert.sobel_y_base, expert.laplacian_base]).to(dtype)


def by_the_formula(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three filters, squares and roots."""
    channels = x.shape[1]
    sobel_x, sobel_y, laplacian = (
        F.conv2d(x, kernel.expand(channels, 1, 3, 3), padding=1, groups=channels) for kernel in kernels(x.dtype)
    )
    sobel = (sobel_x**2 + sobel_y**2 + 1e-8).sqrt()
    return sobel, laplacian.abs(), (sobel**2 + laplacian**2 + 1e-8).sqrt()


def test_formula() -> None:
    """Values and gradient in float64, on noise and where nothing has an edge."""
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[0, :, :5] = 0.5
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    strengths, expected = edge_strength(own, kernels(x.dtype)), by_the_formula(other)
    probe = torch.randn(3, *x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward([(torch.stack(each) * probe).sum() for each in (strengths, expected)])

    for one, two in zip(strengths, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", HALF_PRECISIONS, ids=str)
def test_half_precision(dtype: torch.dtype) -> None:
    """Only rounding separates values and gradient from float32: squares do not overflow, nor does 1e-8 vanish."""
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[0, :, :5] = 0.5
    x[1, 0] *= 300  # its squares are beyond 65504
    own, other = x.clone().requires_grad_(), x.float().requires_grad_()
    strengths, expected = edge_strength(own, kernels(dtype)), by_the_formula(other)
    torch.autograd.backward([torch.stack(each).float().sum() for each in (strengths, expected)])

    error = 4 * torch.finfo(dtype).eps
    for one, two in zip(strengths, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.float(), two, rtol=error, atol=1e-6)
    assert own.grad is not None
    assert other.grad is not None
    assert (own.grad - other.grad).norm() < error * other.grad.norm()
