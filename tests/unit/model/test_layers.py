from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from camoxpert_cli.model.layers import GlobalAvgPool, LayerNorm2d, adaptive_avg_pool2d, pointwise, resize, split_in_four


def test_global_mean() -> None:
    """The mean over pixels, as a map of one pixel."""
    x = torch.arange(24.0).view(1, 2, 3, 4)

    assert GlobalAvgPool()(x).tolist() == [[[[5.5]], [[17.5]]]]


@settings(max_examples=40)
@given(height=st.integers(1, 24), width=st.integers(1, 24), cells=st.sampled_from([1, 2, 4, 8]), last=st.booleans())
def test_grid_means(height: int, width: int, cells: int, last: bool) -> None:
    """Adaptive pooling and its gradient in float64, also where cells overlap, and where there are more than pixels."""
    generator = torch.Generator().manual_seed(height * 25 + width)
    x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=generator)
    x = x.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    probe = torch.randn(2, 3, cells, cells, dtype=torch.float64, generator=generator)
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    means, expected = adaptive_avg_pool2d(own, cells), F.adaptive_avg_pool2d(other, cells)
    torch.autograd.backward([(means * probe).sum(), (expected * probe).sum()])

    torch.testing.assert_close(means, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-12, atol=1e-12)


@settings(max_examples=40)
@given(size=st.integers(1, 90), cells=st.sampled_from([1, 2, 4, 8]), value=st.floats(-6e4, 6e4))
@example(size=44, cells=1, value=1.0)
def test_grid_means_in_half_precision(size: int, cells: int, value: float) -> None:
    """Of equal values they are that value, as far as sums in half precision go: no bias, and no overflow."""
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)):
        x = torch.full((1, 2, size, size), value, dtype=dtype)
        means = adaptive_avg_pool2d(x, cells)

        assert means.dtype == dtype
        torch.testing.assert_close(means, x[:, :, :1, :1].expand(-1, -1, cells, cells), rtol=tolerance, atol=1e-6)


def test_layer_norm() -> None:
    """Each pixel is normalized over its channels with eps 1e-6, then scaled and shifted per channel."""
    norm = LayerNorm2d(5)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(5.0))
        norm.bias.copy_(torch.arange(5.0) - 2)
    x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)) * 1e-3  # small enough for eps to matter

    pixels = x.double().numpy()
    mean, variance = pixels.mean(1, keepdims=True), pixels.var(1, keepdims=True)
    channel = np.arange(5.0).reshape(1, 5, 1, 1)
    expected = (pixels - mean) / np.sqrt(variance + 1e-6) * channel + channel - 2

    # Measured 4e-7; with eps 1e-5 it would be 2.6.
    assert np.abs(norm(x).detach().double().numpy() - expected).max() < 5e-6


def test_pointwise_names() -> None:
    """The convolution is `.0` and the norm `.1`, as in the original program's checkpoints."""
    assert list(pointwise(4, 3).state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


@given(st.integers(4, 2048))
def test_split_in_four(channels: int) -> None:
    """Four widths that add up, the first three a quarter each."""
    widths = split_in_four(channels)

    assert sum(widths) == channels
    assert widths[:3] == (channels // 4,) * 3


def test_resize_leaves_right_size_alone() -> None:
    """A map that has the size already is returned as it is."""
    x = torch.randn(1, 2, 5, 7)

    assert resize(x, (5, 7)) is x


def test_resize() -> None:
    """Bilinear between the centres of pixels (corners not aligned), and without smoothing when it shrinks."""
    row = torch.tensor([0.0, 8.0]).view(1, 1, 1, 2)
    spikes = torch.tensor([0.0, 8.0, 0.0, 0.0, 0.0, 8.0]).view(1, 1, 1, 6)

    assert resize(row, (1, 4)).flatten().tolist() == [0.0, 2.0, 6.0, 8.0]
    assert resize(spikes, (1, 2)).flatten().tolist() == [8.0, 0.0]
