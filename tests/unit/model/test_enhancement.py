from __future__ import annotations

import pytest
import torch

from camoxpert_cli.model.enhancement import ChannelSpatialGate
from tests.helpers.networks import stir
from tests.helpers.reference_network import GateBlock


@pytest.mark.parametrize("channels", [24, 100])
def test_parity(channels: int) -> None:
    """Values and gradients are those of the reference; the spatial gate sees the map after the channel gate."""
    torch.manual_seed(0)
    gate, reference = ChannelSpatialGate(channels).double(), GateBlock(channels).double()
    stir(gate)
    reference.load_state_dict(gate.state_dict())
    x = torch.randn(3, channels, 9, 6, dtype=torch.float64)

    outputs = []
    for module in (gate, reference):
        output = module(x)
        (output**2).sum().backward()
        outputs.append(output)

    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for own, other in zip(gate.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-10, atol=1e-10)


def test_few_channels() -> None:
    """A map of fewer than eight channels still has a channel gate that learns."""
    torch.manual_seed(0)
    gate = ChannelSpatialGate(4)
    stir(gate)
    gate(torch.randn(2, 4, 5, 5)).sum().backward()

    assert all(parameter.grad is not None for parameter in gate.parameters())
    assert gate(torch.randn(1, 4, 5, 5)).shape == (1, 4, 5, 5)
