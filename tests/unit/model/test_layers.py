from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camoxpert_cli.model.layers import (
    Conv1x1,
    GlobalAvgPool,
    LayerNorm,
    LayerNorm2d,
    Pointwise,
    resize,
    split_in_four,
)


def test_global_mean() -> None:
    """The mean over pixels, as a map of one pixel."""
    x = torch.arange(24.0).view(1, 2, 3, 4)

    assert GlobalAvgPool()(x).tolist() == [[[[5.5]], [[17.5]]]]


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("like", [torch.float32, None], ids=["float32", "half"])
def test_layer_norm_in_half_precision(dtype: torch.dtype, like: torch.dtype | None) -> None:
    """Under autocast its output is half precision, with statistics and gradients that only rounding tells from float32.

    Outside of it, and afterwards, nothing is converted; autocast itself is on again.
    """
    norm = LayerNorm(64)
    x = 100 + torch.randn(4, 5, 64, generator=torch.Generator().manual_seed(0))  # a variance that dtype cannot sum
    x = x.to(dtype).to(like or dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        own = norm(x)
        assert torch.is_autocast_enabled("cpu")
    expected = norm(x.detach().float())
    own.float().square().sum().backward()

    assert own.dtype == dtype
    assert expected.dtype == torch.float32
    torch.testing.assert_close(own.float(), expected, rtol=2**-7, atol=2**-7)
    assert norm.weight.grad is not None
    # Measured 0.07: on CPUs torch sums this gradient in half precision.
    torch.testing.assert_close(norm.weight.grad, 2 * expected.square().sum((0, 1)), rtol=0.1, atol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_conv1x1(bias: bool) -> None:
    """It is a 1x1 convolution: values, names, and its output stays channels last."""
    torch.manual_seed(0)
    own, other = Conv1x1(6, 4, bias=bias), nn.Conv2d(6, 4, 1, bias=bias)
    other.load_state_dict(own.state_dict())
    x = torch.randn(2, 6, 3, 5).to(memory_format=torch.channels_last)

    torch.testing.assert_close(own(x), other(x))
    assert own(x).is_contiguous(memory_format=torch.channels_last)


def test_before_gelu() -> None:
    """Concatenated branches share one GELU."""
    torch.manual_seed(0)
    branch, x = Pointwise(6, 4), torch.randn(2, 6, 3, 5)

    assert torch.equal(nn.functional.gelu(branch.before_gelu(x)), branch(x))


def test_pointwise_names() -> None:
    """The convolution is `.0` and the norm `.1`, as in the original program's checkpoints."""
    assert list(Pointwise(4, 3).state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


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
