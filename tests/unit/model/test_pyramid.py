from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from camoxpert_cli.model.pyramid import CELLS, GRIDS, Pyramid, pyramid

SIZES = st.integers(1, 24)


def pyramid_for(x: Tensor) -> Pyramid:
    return pyramid(x.shape[2], x.shape[3], x.dtype, x.device)


def pooled(x: Tensor) -> Tensor:
    """All grids by adaptive pooling, (B, cells, C)."""
    return torch.cat([F.adaptive_avg_pool2d(x, side).flatten(2) for side in GRIDS], dim=2).transpose(1, 2)


def resized(cells: Tensor, height: int, width: int) -> Tensor:
    """The sum of all grids, each by bilinear interpolation, (B, C, H, W)."""
    grids = torch.split(cells.transpose(1, 2), [side**2 for side in GRIDS], dim=2)
    squares = [grid.reshape(*grid.shape[:2], side, side) for grid, side in zip(grids, GRIDS, strict=True)]
    maps = [F.interpolate(each, size=(height, width), mode="bilinear", align_corners=False) for each in squares]
    return torch.stack(maps).sum(dim=0)


@settings(max_examples=40)
@given(height=SIZES, width=SIZES, last=st.booleans())
def test_means(height: int, width: int, last: bool) -> None:
    """Adaptive pooling and its gradient in float64, also where cells overlap, and where there are more than pixels."""
    generator = torch.Generator().manual_seed(height * 25 + width)
    x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=generator)
    x = x.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    probe = torch.randn(2, CELLS[-1], 3, dtype=torch.float64, generator=generator)
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    means, expected = pyramid_for(x).means(own), pooled(other)
    torch.autograd.backward([(means * probe).sum(), (expected * probe).sum()])

    torch.testing.assert_close(means, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-12, atol=1e-12)


@settings(max_examples=40)
@given(height=SIZES, width=SIZES)
def test_spread(height: int, width: int) -> None:
    """Bilinear resizing of each grid, in float64, also where there are fewer pixels than cells."""
    generator = torch.Generator().manual_seed(height * 25 + width)
    cells = torch.randn(2, CELLS[-1], 3, dtype=torch.float64, generator=generator)
    own = pyramid(height, width, cells.dtype, cells.device).spread(cells)

    assert own.shape == (2, 3, height, width)
    torch.testing.assert_close(own, resized(cells, height, width), rtol=1e-12, atol=1e-12)


@settings(max_examples=15)
@given(size=st.integers(1, 90), value=st.floats(-6e4, 6e4))
@example(size=44, value=1.0)
def test_means_in_half_precision(size: int, value: float) -> None:
    """Of equal values they are that value, as far as sums in half precision go: no bias, and no overflow."""
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)):
        x = torch.full((1, 2, size, size), value, dtype=dtype)
        means = pyramid_for(x).means(x)

        assert means.dtype == dtype
        torch.testing.assert_close(means, x[:, :, 0].transpose(1, 2)[:, :1].expand_as(means), rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_spread_in_half_precision(dtype: torch.dtype) -> None:
    """Only rounding separates it from float64: of two steps, each of a sum of few terms."""
    cells = torch.randn(2, CELLS[-1], 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    own = pyramid(40, 30, dtype, cells.device).spread(cells)

    # Measured 0.7 and 0.8 of this.
    error = (own.double() - resized(cells.double(), 40, 30)).abs().max()
    assert error < 4 * torch.finfo(dtype).eps * cells.abs().max()


def test_built_in_inference_mode() -> None:
    """It serves training as well if a prediction was first to need it."""
    with torch.inference_mode():
        built = pyramid(6, 5, torch.float32, torch.device("cpu"))
    x = torch.randn(1, 2, 6, 5, requires_grad=True)
    torch.autograd.backward(built.spread(built.means(x)).sum())

    assert x.grad is not None
