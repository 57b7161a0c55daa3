from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.model import cast_weights as cast_weights_module
from camoxpert_cli.model.cast_weights import cast_weights, with_cast_weights
from tests.helpers.conversions import Conversions

DTYPE = torch.bfloat16


def part() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1))


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in module.parameters()]


def test_results_are_those_of_autocast() -> None:
    """Values and gradients are the same to the bit, and the weights are float32 parameters before and after."""
    module, plain = part(), part()
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", DTYPE):
        own, other = with_cast_weights(module, x), plain(x)
    for output in (own, other):
        output.float().square().sum().backward()

    assert torch.equal(own, other)
    for one, two in zip(gradients(module), gradients(plain), strict=True):
        assert one is not None
        assert two is not None
        assert one.dtype == torch.float32
        assert torch.equal(one, two)
    assert all(isinstance(weight, nn.Parameter) and weight.dtype == torch.float32 for weight in module.parameters())


def test_all_at_once() -> None:
    """Weights are converted in one operation, but for those of BatchNorm, which stay float32."""
    module = part()
    with torch.autocast("cpu", DTYPE), Conversions(list(module.parameters())) as conversions:
        with_cast_weights(module, torch.randn(2, 3, 8, 8))

    assert (conversions.single, conversions.together) == (0, 6)


def test_without_autocast() -> None:
    """Nothing is replaced."""
    module = part()
    before = list(module.parameters())
    with cast_weights(module, "cpu"):
        assert all(one is two for one, two in zip(module.parameters(), before, strict=True))


def test_unused_weights_have_no_gradient() -> None:
    """A part that was not called has gradient None, not zero."""
    module = part()
    with torch.autocast("cpu", DTYPE), cast_weights(module, "cpu"):
        module[0](torch.randn(2, 3, 8, 8)).float().sum().backward()

    assert [gradient is not None for gradient in gradients(module)] == [True] * 2 + [False] * 6


def test_after_an_error() -> None:
    """The weights are back if the part raises."""
    module = part()
    before = list(module.parameters())
    with pytest.raises(RuntimeError), torch.autocast("cpu", DTYPE):
        with_cast_weights(module, torch.randn(2, 5, 8, 8))

    assert all(one is two for one, two in zip(module.parameters(), before, strict=True))


def test_children_of_a_feature_extractor() -> None:
    """Those that are called one after the other convert their own weights, and are as they were afterwards."""
    module = nn.ModuleDict({"one": part(), "two": nn.Conv2d(2, 2, 1)})
    with torch.autocast("cpu", DTYPE), cast_weights(module, "cpu"):
        x = module["one"](torch.randn(2, 3, 8, 8))
        assert module["one"][0].weight.dtype == DTYPE  # type: ignore[index]
        assert module["two"].weight.dtype == torch.float32
        module["two"](x)
        assert module["two"].weight.dtype == DTYPE

    assert all(weight.dtype == torch.float32 for weight in module.parameters())
    assert all("forward" not in vars(child) for child in module.children())


def test_interrupted_while_replacing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are back if the user interrupts at any time, as in a notebook, where the network is used again."""
    module = part()
    before = list(module.parameters())
    replace = cast_weights_module._replace

    def replace_then_interrupt(*arguments: Any) -> None:
        replace(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(cast_weights_module, "_replace", replace_then_interrupt)
    with pytest.raises(KeyboardInterrupt), torch.autocast("cpu", DTYPE):
        with_cast_weights(module, torch.randn(2, 3, 8, 8))

    assert all(one is two for one, two in zip(module.parameters(), before, strict=True))


def test_threads_that_share_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are back if another thread's pass ends while a child of this one's is called."""
    module = nn.ModuleDict({"one": part()})
    replace = cast_weights_module._replace
    other = ExitStack()

    def replace_then_end_the_other(*arguments: Any) -> None:
        replace(*arguments)
        other.close()

    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", DTYPE):
        other.enter_context(cast_weights(module, "cpu"))
        module["one"](x)
        with cast_weights(module, "cpu"):
            monkeypatch.setattr(cast_weights_module, "_replace", replace_then_end_the_other)
            module["one"](x)

    assert all(weight.dtype == torch.float32 for weight in module.parameters())
    assert "forward" not in vars(module["one"])
