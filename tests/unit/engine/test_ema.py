from __future__ import annotations

from copy import deepcopy
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.model.camoxpert import CamoXpert

DECAY = 0.7


@pytest.fixture
def network() -> CamoXpert:
    """Parameters, and all the kinds of buffers that there are; the average looks at nothing else."""
    torch.manual_seed(0)
    return cast(CamoXpert, nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))


def disturb(network: CamoXpert) -> None:
    """Change every parameter and buffer, as a training step does."""
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn_like(value))
            else:
                value.add_(1)


def doubles(network: CamoXpert) -> dict[str, Tensor]:
    return {name: value.double() for name, value in network.state_dict().items()}


def test_plain_formula(network: CamoXpert) -> None:
    """Parameters and buffers follow average = d average + (1 - d) value, d = min(decay, (1 + n) / (10 + n)).

    Rounding to float32 at each of the 40 updates leaves 2e-7 of the largest value (measured); 1e-6 is allowed. A decay
    off by 0.01 in a single one of the last twenty updates leaves 7e-5 or more.
    """
    ema = Ema(network, DECAY)
    expected = doubles(network)
    for updates in range(1, 41):
        disturb(network)
        ema.update(network)
        decay = min(DECAY, (1 + updates) / (10 + updates))
        for name, value in doubles(network).items():
            expected[name] = decay * expected[name] + (1 - decay) * value

    floating = [name for name, value in network.state_dict().items() if value.is_floating_point()]
    ema_weights = doubles(ema.network)
    assert any(name.endswith("running_var") for name in floating)
    for name in floating:
        error = (ema_weights[name] - expected[name]).abs().max() / expected[name].abs().max()
        assert error < 1e-6, name


def test_integers_are_copied(network: CamoXpert) -> None:
    """Counters such as BatchNorm's number of batches are those of the network."""
    ema = Ema(network, DECAY)
    for _ in range(3):
        disturb(network)
        ema.update(network)
    counters = {name: value for name, value in network.state_dict().items() if not value.is_floating_point()}

    assert counters
    assert all(torch.equal(ema.network.state_dict()[name], value) for name, value in counters.items())


def test_first_updates_weigh_more(network: CamoXpert) -> None:
    """The first update takes nine elevenths of the network: a short run must not keep its random weights."""
    ema = Ema(network, 0.999)
    name = "0.weight"
    start = network.state_dict()[name].clone()
    disturb(network)
    ema.update(network)
    moved = (ema.network.state_dict()[name] - start) / (network.state_dict()[name] - start)

    assert moved.mean().item() == pytest.approx(9 / 11, abs=1e-4)


def test_values_that_are_replaced(network: CamoXpert) -> None:
    """It follows both networks if what they hold is loaded, converted or exchanged between updates."""
    ema, start = Ema(network, DECAY), deepcopy(network)
    ema.update(network)  # changes nothing, and knows now where values are
    network.load_state_dict(start.state_dict(), assign=True)
    network.double()
    ema.network.double()
    disturb(network)
    ema.update(network)
    values = ema.network.state_dict()

    assert values["1.num_batches_tracked"] == network.state_dict()["1.num_batches_tracked"] == 1
    for name, old in doubles(start).items():
        if values[name].is_floating_point():
            expected = torch.lerp(old, network.state_dict()[name], 1 - 3 / 12)
            torch.testing.assert_close(values[name], expected, rtol=1e-6, atol=1e-7)


def test_copies(network: CamoXpert) -> None:
    """A copy of an EMA averages its own network, and each the network that it is given."""
    ema = Ema(network, DECAY)
    ema.update(network)
    copy, twin = deepcopy(ema), deepcopy(network)
    disturb(twin)
    before = {name: value.clone() for name, value in ema.network.state_dict().items()}
    copy.update(twin)

    assert all(torch.equal(value, before[name]) for name, value in ema.network.state_dict().items())
    ema.update(twin)
    pairs = zip(ema.network.state_dict().values(), copy.network.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not torch.equal(copy.network.state_dict()["0.weight"], before["0.weight"])


def test_ema_is_apart_from_the_network(network: CamoXpert) -> None:
    """It shares no memory with the network, needs no gradient, stays in eval mode and does not change what it reads."""
    ema = Ema(network.train(), DECAY)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    disturb(ema.network)
    ema.update(network)

    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    assert not any(module.training for module in ema.network.modules())
    assert network.training
