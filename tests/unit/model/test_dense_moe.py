from __future__ import annotations

import pytest
import torch

from camoxpert_cli.model.dense_moe import AllExperts, with_all_experts
from camoxpert_cli.model.moe import MixtureOfExperts
from tests.helpers.networks import random_images, small_network, spread_routing, stir


@pytest.mark.parametrize("num_experts", [1, 2, 5, 7, 9])
def test_same_as_the_routed_mixture(num_experts: int) -> None:
    """Output and routing are those of the mixture, for images that choose different experts."""
    torch.manual_seed(0)
    mixture = MixtureOfExperts(24, num_experts)
    stir(mixture)
    mixture.double().eval()
    x = torch.randn(6, 24, 9, 8, dtype=torch.float64) + 3 * torch.randn(6, 24, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        expected, routing = mixture(x)
        output, own = AllExperts(mixture)(x)

    # Float64 sums in another order: measured 4e-15 of outputs up to 10.
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(own.chosen, routing.chosen)
    assert num_experts <= 2 or len({tuple(sorted(row)) for row in routing.chosen.tolist()}) > 1


def test_whole_network() -> None:
    """The copy gives the network's outputs under the network's names, and leaves the network as it was."""
    images = random_images(2)
    network = small_network("test_efficientnet", 3).eval()
    spread_routing(network, images)
    with torch.no_grad():
        before = network(images)
        fixed = with_all_experts(network)
        for parameter in fixed.parameters():
            parameter.requires_grad_(False)
        output = fixed(images)

    # Measured 2e-6 of logits with standard deviation 0.7.
    for own, other in zip((output.logits, *output.deep_logits), (before.logits, *before.deep_logits), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=3e-5)
    assert list(fixed.state_dict()) == list(network.state_dict())
    assert not any(isinstance(layer, AllExperts) for layer in network.moe_layers)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert len({tuple(sorted(row)) for row in before.routing[0].chosen.tolist()}) > 1
