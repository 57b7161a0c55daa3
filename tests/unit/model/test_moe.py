from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from camoxpert_cli.model.dispatch import add_weighted
from camoxpert_cli.model.experts import EXPERT_TYPES
from camoxpert_cli.model.moe import (
    MixtureOfExperts,
    RoutingSums,
    balance_loss,
    experts_per_image,
    routing_sums,
)
from camoxpert_cli.model.routes import Routing
from tests.helpers import reference_network
from tests.helpers.networks import random_images, small_network, stir, without_dropout

CHANNELS = 24


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Counts what makes the host wait for the device: reading values, and results whose shape depends on values."""

    OPERATORS = (
        "_local_scalar_dense",  # item, int, float, bool
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        "equal",
    )
    METHODS = ("tolist", "numpy", "cpu", "__array__")  # on the CPU these reach no operator

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.count = 0
        for name in self.METHODS:
            monkeypatch.setattr(Tensor, name, self.counted(getattr(Tensor, name)))

    def counted(self, method: Any) -> Any:
        def count_and_call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return method(*args, **kwargs)

        return count_and_call

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(function.overloadpacket).removeprefix("aten.")
        by_mask = name == "index" and any(part is not None and part.dtype == torch.bool for part in args[1])
        self.count += by_mask or name in self.OPERATORS
        return function(*args, **(kwargs or {}))


def mixture(num_experts: int = 7) -> MixtureOfExperts:
    torch.manual_seed(0)
    layer = MixtureOfExperts(CHANNELS, num_experts)
    stir(layer)
    return layer


def set_gate(layer: MixtureOfExperts, logits: list[list[float]]) -> Tensor:
    """Make the gate give these logits (B, E), and return the images (B, C, 6, 5) for which it does."""
    x = torch.randn(len(logits), CHANNELS, 6, 5, generator=torch.Generator().manual_seed(1))
    x[:, : len(logits)] += torch.eye(len(logits)).view(len(logits), len(logits), 1, 1) - x[:, : len(logits)].mean(
        (-2, -1), keepdim=True
    )
    gate = layer.gate[1]
    assert isinstance(gate, nn.Conv2d)
    assert gate.bias is not None
    with torch.no_grad():
        gate.bias.zero_()
        gate.weight.zero_()
        gate.weight[:, : len(logits), 0, 0] = torch.tensor(logits).t()
    return x


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("num_experts", "top_k"), [(1, 1), (2, 2), (3, 2), (4, 2), (5, 2), (6, 3), (7, 3), (9, 4)])
def test_experts_per_image(num_experts: int, top_k: int) -> None:
    """Half of the experts, rounded down, but two where there are two and never more than there are."""
    layer = MixtureOfExperts(8, num_experts)
    output, routing = layer(torch.randn(3, 8, 4, 4))

    assert experts_per_image(num_experts) == top_k
    assert output.shape == (3, 8, 4, 4)
    assert routing.gate_logits.shape == (3, num_experts)
    assert routing.chosen.shape == (3, top_k)


def test_kinds_repeat() -> None:
    """Expert e is of kind e mod 7."""
    assert [type(expert) for expert in mixture(9).experts] == [*EXPERT_TYPES, *EXPERT_TYPES[:2]]


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("num_experts", [1, 2, 5, 7, 9])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_parity(num_experts: int, batch: int) -> None:
    """Output, routing and all gradients are those of the reference, which runs one image and expert at a time."""
    layer = mixture(num_experts).double()
    without_dropout(layer)
    generator = torch.Generator().manual_seed(batch)
    logits = torch.randn(batch, num_experts, generator=generator, dtype=torch.float64)
    x = set_gate(layer, logits.tolist()).double()
    reference = reference_network.MixtureOfExperts(CHANNELS, num_experts).double()
    reference.load_state_dict(layer.state_dict())
    without_dropout(reference)
    probe = torch.randn(x.shape, generator=generator, dtype=torch.float64)

    output, routing = layer(x)
    (output * probe).sum().backward()
    expected, chosen, gate_logits = reference(x)
    (expected * probe).sum().backward()

    assert torch.equal(routing.chosen, chosen)
    torch.testing.assert_close(routing.gate_logits, gate_logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(output, expected, rtol=1e-11, atol=1e-11)
    for (name, own), other in zip(layer.named_parameters(), reference.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None), name
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-9, atol=1e-9, msg=name)


def test_half_precision() -> None:
    """Under autocast gate logits and weights are float32, so that near ones are told apart; the map stays as it is."""
    layer = mixture()
    x = set_gate(layer, torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).tolist()).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        output, routing = layer(x)

    assert routing.gate_logits.dtype == torch.float32
    assert output.dtype == torch.bfloat16


def test_images_do_not_mix() -> None:
    """An image's output does not depend on the images beside it or on their order."""
    layer = mixture().eval()
    x = set_gate(layer, torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).tolist())
    order = [3, 0, 4, 1, 2]
    with torch.no_grad():
        together, _ = layer(x)
        shuffled, _ = layer(x[order])
        alone = torch.cat([layer(image[None])[0] for image in x])

    torch.testing.assert_close(together[order], shuffled)
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("images", [1, 3])
def test_channels_stay_last(images: int) -> None:
    """Images reach experts with their channels last, and so do gradients; other layouts would be turned each time."""
    layer = mixture().to(memory_format=torch.channels_last)
    x = set_gate(layer, torch.randn(images, 7, generator=torch.Generator().manual_seed(0)).tolist())
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    seen: list[Tensor] = []
    for expert in layer.experts:
        expert.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
        expert.register_full_backward_hook(lambda _, __, gradients: seen.extend(gradients))
    output, _ = layer(x)
    output.backward(torch.randn_like(output))

    assert x.grad is not None
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in (*seen, output, x.grad))


def test_an_overflow_stays_where_it_is() -> None:
    """Where an expert makes infinity of one image, the others are what they were."""
    layer = mixture().eval()
    x = set_gate(layer, torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).tolist())
    with torch.no_grad():
        before, _ = layer(x)
        x[2, 7:] = float("inf")  # channels that the gate does not look at
        after, _ = layer(x)

    assert not after[2].isfinite().all()
    others = [0, 1, 3, 4]
    torch.testing.assert_close(after[others], before[others])


def test_gradient_of_weights_in_half_precision() -> None:
    """Sums over all pixels that float16 cannot hold reach the gate, in float32."""
    features = torch.zeros(2, 40, 40, 64, dtype=torch.float16)
    results = torch.ones(4, 40, 40, 64, dtype=torch.float16)
    weights = torch.full((2, 2), 0.5, requires_grad=True)
    total = add_weighted(features, results, weights, torch.tensor([0, 1, 0, 1]), torch.tensor([[0, 2], [1, 3]]))
    torch.autograd.backward(total, torch.ones_like(total))

    assert total.dtype == torch.float16
    assert weights.grad is not None
    assert weights.grad.tolist() == [[40 * 40 * 64.0] * 2] * 2


def test_one_call_for_each_expert() -> None:
    """An expert is called once with all images routed to it, and one that no image chose is not called."""
    layer = mixture()
    x = set_gate(layer, [[9, 8, 7, 0, 0, 0, 0], [9, 8, 0, 7, 0, 0, 0], [9, 8, 0, 7, 0, 0, 0]])
    calls: list[tuple[int, int]] = []
    for number, expert in enumerate(layer.experts):
        expert.register_forward_hook(lambda _, inputs, __, n=number: calls.append((n, len(inputs[0]))))
    layer(x)

    assert calls == [(0, 3), (1, 3), (2, 1), (3, 2)]


@pytest.mark.parametrize("num_experts", [2, 7])
def test_one_host_read(monkeypatch: pytest.MonkeyPatch, num_experts: int) -> None:
    """The host waits for the device once a layer, and not at all in the backward pass."""
    layer = mixture(num_experts)
    x = set_gate(layer, torch.randn(6, num_experts, generator=torch.Generator().manual_seed(0)).tolist())
    with HostReads(monkeypatch) as forward:
        output, routing = layer(x)
    with HostReads(monkeypatch) as backward:
        balance = balance_loss(routing_sums((routing,)), 6, layer.top_k)
        (output.sum() + balance).backward()

    assert forward.count == 1
    assert backward.count == 0


def test_one_host_read_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host waits once for the routing of the whole network."""
    network = small_network("test_resnet", 3).train()
    images = random_images(2)
    network(images)  # fills what is kept for images of this size
    with HostReads(monkeypatch) as reads:
        network(images)

    assert reads.count == 1


def test_host_reads_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter of the test above sees the reference read one number for each image and choice."""
    reference = reference_network.MixtureOfExperts(CHANNELS, 7)
    with HostReads(monkeypatch) as reads:
        reference(torch.randn(6, CHANNELS, 5, 5))

    assert reads.count == 6 * 3


def test_unchosen_expert_has_no_gradient() -> None:
    """Experts that no image chose have gradient None, not zero: the optimizer leaves them alone."""
    layer = mixture()
    x = set_gate(layer, [[9, 8, 7, 0, 0, 0, 0], [9, 8, 0, 7, 0, 0, 0]])
    output, routing = layer(x)
    (output.sum() + balance_loss(routing_sums((routing,)), 2, 3)).backward()

    with_gradient = [len(gradients(expert)) == len(list(expert.parameters())) for expert in layer.experts]
    without_gradient = [not gradients(expert) for expert in layer.experts]
    assert with_gradient == [True, True, True, True, False, False, False]
    assert without_gradient == [False, False, False, False, True, True, True]


def test_output_trains_the_gate() -> None:
    """The gate learns from what the chosen experts give, without the balance loss."""
    layer = mixture()
    output, _ = layer(set_gate(layer, [[3, 2, 1, 0, 0, 0, 0]]))
    output.square().sum().backward()

    gate = layer.gate[1]
    assert isinstance(gate, nn.Conv2d)
    assert gate.bias is not None
    assert gate.bias.grad is not None
    assert (gate.bias.grad != 0).tolist() == [True, True, True, False, False, False, False]


def test_balance_trains_the_gate_alone() -> None:
    """The balance loss gives the gate a gradient, towards experts that are chosen less, and no expert any."""
    layer = mixture()
    _, routing = layer(set_gate(layer, [[3, 2, 1, 0, 0, 0, 0], [3, 1, 2, 0, 0, 0, 0]]))
    torch.autograd.backward(balance_loss(routing_sums((routing,)), 2, 3))

    gate = layer.gate[1]
    assert isinstance(gate, nn.Conv2d)
    assert gate.bias is not None
    assert gate.bias.grad is not None
    assert (gate.bias.grad[:3] > 0).all()
    assert (gate.bias.grad[3:] < 0).all()
    assert len(gradients(layer.gate)) == 2
    assert gradients(layer.experts) == []


@pytest.mark.parametrize(("num_experts", "top_k"), [(1, 1), (2, 2), (5, 2), (7, 3)])
def test_balance_of_even_use(num_experts: int, top_k: int) -> None:
    """The loss is one for each layer where the experts are evenly used."""
    first = torch.arange(num_experts)
    chosen = torch.stack([(first + step) % num_experts for step in range(top_k)], dim=1)
    layer = Routing(torch.eye(num_experts) * 3, chosen)  # probabilities differ in each image, not in their mean

    balance = balance_loss(routing_sums((layer,) * 4), num_experts, top_k)

    assert balance.item() == pytest.approx(4, rel=1e-6)


def test_balance_of_one_sided_use() -> None:
    """Where all images go to the same K of E experts with certainty, a layer's loss is E / K."""
    logits = torch.full((5, 7), -100.0)
    logits[:, :3] = 0
    layer = Routing(logits, torch.tensor([[0, 1, 2]] * 5))

    assert balance_loss(routing_sums((layer,)), 5, 3).item() == pytest.approx(7 / 3, rel=1e-6)


def test_balance_is_the_reference() -> None:
    """For random routing of two layers, value and gradient are those of the reference."""
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(6, 5, generator=generator, requires_grad=True) for _ in range(2)]
    layers = tuple(Routing(leaf, leaf.detach().topk(2, dim=1).indices) for leaf in leaves)

    own = balance_loss(routing_sums(layers), 6, 2)
    other = torch.stack([reference_network.balance_loss(*layer) for layer in layers]).sum()

    # Measured equal; sums in another order may differ in the last digit.
    torch.testing.assert_close(own, other, rtol=1e-6, atol=0)
    for own_gradient, other_gradient in zip(
        torch.autograd.grad(own, leaves), torch.autograd.grad(other, leaves), strict=True
    ):
        torch.testing.assert_close(own_gradient, other_gradient, rtol=1e-5, atol=1e-7)


def test_balance_from_parts() -> None:
    """Sums over uneven parts of a batch, added, give the balance of the whole batch, and not the mean of the parts'."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 6, generator=generator, dtype=torch.float64)
    layers = tuple(Routing(layer, layer.topk(3, dim=1).indices) for layer in logits)
    whole = balance_loss(routing_sums(layers), 7, 3)

    parts = [
        tuple(Routing(*(part[first:end] for part in layer)) for layer in layers) for first, end in [(0, 5), (5, 7)]
    ]
    sums = [routing_sums(part) for part in parts]
    joined = RoutingSums(sums[0].chosen + sums[1].chosen, sums[0].probability + sums[1].probability)
    mean = (balance_loss(sums[0], 5, 3) + balance_loss(sums[1], 2, 3)) / 2

    torch.testing.assert_close(balance_loss(joined, 7, 3), whole, rtol=1e-14, atol=0)
    assert abs(mean - whole) > 0.01
