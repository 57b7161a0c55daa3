from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.model.double_size import double_size, gradient_of_double_size


@settings(max_examples=30)
@given(height=st.integers(1, 9), width=st.integers(1, 9), last=st.booleans())
def test_gradient(height: int, width: int, last: bool) -> None:
    """It is that of torch's interpolation, in float64, at borders and for single lines too."""
    generator = torch.Generator().manual_seed(height * 10 + width)
    x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=generator, requires_grad=True)
    gradient = torch.randn(2, 3, 2 * height, 2 * width, dtype=torch.float64, generator=generator)
    gradient = gradient.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    (expected,) = torch.autograd.grad(doubled, x, gradient)

    assert torch.equal(double_size(x), doubled)
    torch.testing.assert_close(gradient_of_double_size(gradient), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_gradient_in_half_precision(dtype: torch.dtype) -> None:
    """It is rounded twice, and not for each of the sixteen pixels that it collects."""
    gradient = torch.randn(2, 8, 20, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    own = gradient_of_double_size(gradient)

    error = (own.double() - gradient_of_double_size(gradient.double())).abs().max()
    assert error < 2 * torch.finfo(dtype).eps * own.double().abs().max()


def test_half_precision_stays() -> None:
    """Under autocast its output is half precision, as its input."""
    with torch.autocast("cpu", torch.bfloat16):
        assert double_size(torch.randn(1, 2, 3, 4).bfloat16()).dtype == torch.bfloat16
