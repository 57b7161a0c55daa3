from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from camoxpert_cli.model.experts import (
    EXPERT_TYPES,
    EdgeExpert,
    LinearAttention,
    attention_heads,
)
from tests.helpers import reference_network
from tests.helpers.networks import stir, without_dropout

HALF_PRECISIONS = [torch.bfloat16, torch.float16]


class InputDtypes(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """The dtypes that operators really get, autocast's conversions included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(function.overloadpacket).removeprefix("aten.")
        if name == "convolution":
            name = "depthwise" if args[8] > 1 else "convolution"
        self.seen.setdefault(name, set()).update(part.dtype for part in args if isinstance(part, Tensor))
        return function(*args, **(kwargs or {}))


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("channels", [30, 42, 100])  # 6, 7 and 5 heads; 4 divides the last alone
@pytest.mark.parametrize("number", range(7), ids=[kind.__name__ for kind in EXPERT_TYPES])
def test_parity(number: int, channels: int) -> None:
    """Each kind of expert gives the reference's values, gradients of weights and gradient of its input."""
    torch.manual_seed(number)
    expert = EXPERT_TYPES[number](channels).double()
    stir(expert)
    without_dropout(expert)
    reference = reference_network.EXPERT_TYPES[number](channels).double()
    without_dropout(reference)
    reference.load_state_dict(expert.state_dict())
    x = torch.randn(2, channels, 9, 7, dtype=torch.float64)
    probe = torch.randn_like(x)

    inputs, outputs = [], []
    for module in (expert, reference):
        inputs.append(x.clone().requires_grad_())
        added = module(inputs[-1])
        outputs.append(added + inputs[-1] if module is expert else added)  # the mixture adds the image's features
        (outputs[-1] * probe).sum().backward()

    # Measured 2e-15, and 4e-14 of gradients up to 120.
    torch.testing.assert_close(*outputs, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-10, atol=1e-10)
    for own, other in zip(expert.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("channels", "heads"), [(80, 8), (288, 8), (584, 8), (100, 5), (30, 6), (42, 7), (22, 2), (11, 1), (4, 4)]
)
def test_attention_heads(channels: int, heads: int) -> None:
    """8 heads where 8 divides the channels, else the largest smaller number that does."""
    assert attention_heads(channels) == heads


def test_dropout_of_attention() -> None:
    """The attention expert drops a tenth of its projection in training, and nothing in eval mode."""
    torch.manual_seed(0)
    attention = LinearAttention(80)
    nn.init.normal_(attention.proj.weight)
    x = torch.randn(2, 80, 16, 16)

    dropped = (attention.train()(x) == 0).float().mean().item()

    assert abs(dropped - 0.1) < 0.01  # 40960 values: five standard deviations are 0.007
    assert not (attention.eval()(x) == 0).any()


@pytest.mark.parametrize("dtype", HALF_PRECISIONS, ids=str)
def test_attention_in_float32(dtype: torch.dtype) -> None:
    """Under autocast attention is float32 between its two convolutions, as products of pixels, which are not."""
    torch.manual_seed(0)
    attention = LinearAttention(16)
    with torch.autocast("cpu", dtype), InputDtypes() as dtypes:
        attention(torch.randn(1, 16, 8, 8).to(dtype))

    assert dtypes.seen["mm"] == dtypes.seen["addmm"] == {dtype}
    for operator in ("elu", "sum", "div", "bmm"):
        assert dtypes.seen[operator] == {torch.float32}


@pytest.mark.parametrize("dtype", HALF_PRECISIONS, ids=str)
def test_flat_image(dtype: torch.dtype) -> None:
    """Where nothing has an edge, the root's gradient is finite, in half precision too."""
    torch.manual_seed(0)
    expert = EdgeExpert(16)
    x = torch.zeros(1, 16, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype):
        expert(x).float().sum().backward()

    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in expert.parameters())


def test_dead_attention() -> None:
    """Where elu + 1 is zero in every channel of q and k, values and gradients are finite."""
    torch.manual_seed(0)
    attention = LinearAttention(16)
    nn.init.normal_(attention.proj.weight)
    with torch.no_grad():
        attention.qkv.weight[:32] = -1.0
    x = torch.full((1, 16, 4, 4), 10.0, requires_grad=True)  # q and k are -160
    output = attention(x)
    output.square().sum().backward()

    assert output.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in attention.parameters())
