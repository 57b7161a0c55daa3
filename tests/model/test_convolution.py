from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.model.convolution import Conv3x3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(7, 9), (2, 3), (1, 1)])  # the kernel reaches beyond the last two
def test_is_torchs_convolution(height: int, width: int, dilation: int, layout: torch.memory_format) -> None:
    """Output and all three gradients are those of torch's own convolution, in float64."""
    torch.manual_seed(0)
    own = Conv3x3(5, 4, dilation).double().to(memory_format=layout)
    plain = nn.Conv2d(5, 4, 3, padding=dilation, dilation=dilation).double()
    plain.load_state_dict(own.state_dict())
    x = torch.randn(3, 5, height, width, dtype=torch.float64)
    probe = torch.randn(3, 4, height, width, dtype=torch.float64)
    results: list[list[Tensor | None]] = []
    for module, inputs in ((own, x.contiguous(memory_format=layout)), (plain, x.clone())):
        inputs.requires_grad_()
        output = module(inputs)
        (output * probe).sum().backward()
        results.append([output, inputs.grad, *(parameter.grad for parameter in module.parameters())])

    # Measured 3e-15.
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_gives_what_is_asked_for() -> None:
    """A frozen kernel gets no gradient and passes one on; a first layer's input gets none, its kernel does."""
    convolution = Conv3x3(2, 2).requires_grad_(False)
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    convolution(x).sum().backward()
    frozen = [parameter.grad for parameter in convolution.parameters()]
    convolution.requires_grad_(True)
    convolution(x.detach()).sum().backward()

    assert x.grad is not None
    assert frozen == [None, None]
    assert all(parameter.grad is not None for parameter in convolution.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_number_format(dtype: torch.dtype) -> None:
    """Under autocast it computes in autocast's format, as torch's own does; otherwise in that of its weights."""
    convolution = Conv3x3(2, 3).double() if dtype == torch.float64 else Conv3x3(2, 3)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = convolution(x)
    output.float().sum().backward()

    assert output.dtype == dtype
    assert convolution.weight.grad is not None
    assert convolution.weight.grad.dtype == convolution.weight.dtype
