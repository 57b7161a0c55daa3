"""What a training step computes, with the whole network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.engine.step import Losses, TrainingStep
from tests.helpers.networks import small_network, without_dropout
from tests.helpers.reference_network import ReferenceOutput, reference_loss
from tests.helpers.training_steps import bytes_of, join, step_of
from tests.helpers.whole_batch import combine


def test_is_the_reference_loss() -> None:
    """The losses are the reference's of what the network gives for the normalized images."""
    step = step_of()
    images, masks = bytes_of(3)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in step.network.normalization)
    with torch.no_grad():
        own = combine(step(images, masks), step.network.top_k)
        output = step.network((images / 255 - mean) / std)
    expected = reference_loss(
        ReferenceOutput(
            output.logits,
            list(output.deep_logits),
            [layer.chosen for layer in output.routing],
            [layer.gate_logits for layer in output.routing],
        ),
        masks,
    )

    # Measured 1e-7 of the value.
    for name, value in expected.items():
        assert getattr(own, name).item() == pytest.approx(value.item(), rel=2e-6), name


def test_parts_of_a_batch() -> None:
    """Uneven parts, as devices get them, joined give the losses and the gradients of the whole batch.

    The mean of the parts' losses would be another number, and that of their balances another loss.
    """
    step = step_of()
    images, masks = bytes_of(5)
    runs: list[tuple[Losses, list[Tensor]]] = []
    for split in ([5], [2, 2, 1]):
        step.zero_grad()
        parts = [step(*part) for part in zip(torch.split(images, split), torch.split(masks, split), strict=True)]
        combined = combine(join(parts), step.network.top_k)
        torch.autograd.backward(combined.total)
        runs.append((combined, [p.grad.clone() for p in step.parameters() if p.grad is not None]))
    of_parts = [combine(part, step.network.top_k) for part in parts]

    (whole, gradients), (joined, joined_gradients) = runs
    # Measured 1e-7 of the terms and 2e-6 of the gradients' norms; a ReLU that rounding flips would move one by more.
    for name, own, other in zip(Losses._fields, joined, whole, strict=True):
        assert own.item() == pytest.approx(other.item(), rel=2e-6), name
    assert len(gradients) == len(joined_gradients)
    largest = max(gradient.norm() for gradient in gradients)
    for own, other in zip(joined_gradients, gradients, strict=True):
        assert (own - other).norm() < 1e-3 * other.norm() + 1e-6 * largest
    for name in ("total", "balance"):
        mean = torch.stack([getattr(part, name) for part in of_parts]).mean()
        assert abs(mean.item() - getattr(whole, name).item()) > 1e-3


def test_without_deep_supervision() -> None:
    """Without deep supervision its term is zero and its heads get no gradient; the other terms are the same."""
    images, masks = bytes_of(2)
    step = step_of(2)
    with_heads = combine(step(images, masks), 2)
    step.deep_supervision = False
    without = combine(step(images, masks), 2)
    torch.autograd.backward(without.total)

    assert without.deep.item() == 0
    assert with_heads.deep.item() > 0
    assert without[1:4] == with_heads[1:4]
    assert without.total.item() == pytest.approx((with_heads.total - 0.4 * with_heads.deep).item(), rel=1e-6)
    assert all(parameter.grad is None for parameter in step.network.deep_heads.parameters())


@pytest.mark.parametrize("backbone", ["edgenext_xx_small", "mambaout_femto"])
def test_gradients_lie_as_their_parameters(backbone: str) -> None:
    """Each gradient has its parameter's layout in memory: the fused optimizer pairs their numbers by address."""
    step = TrainingStep(small_network(backbone), True, None).train()
    for _ in range(2):  # the second adds to what the first has left
        torch.autograd.backward(combine(step(*bytes_of(2)), 3).total)

    for name, parameter in step.named_parameters():
        if parameter.grad is not None:
            kept = [at for at, size in enumerate(parameter.shape) if size > 1]
            assert [parameter.grad.stride(at) for at in kept] == [parameter.stride(at) for at in kept], name


def test_saturated_pixels_learn() -> None:
    """In training, pixels that are wrong beyond the clamp of eval mode have a gradient in the total loss."""
    step = step_of(2)
    last = step.network.final_conv[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        last.bias.fill_(50)
    images, masks = bytes_of(2)
    gradients = []
    for training in (True, False):
        step.network.train(training)
        step.zero_grad()
        torch.autograd.backward(combine(step(images, torch.zeros_like(masks)), 2).bce)
        gradients.append(last.bias.grad.item() if last.bias.grad is not None else None)

    assert gradients == [pytest.approx(1, rel=1e-4), 0]


def test_half_precision_trains() -> None:
    """In bfloat16 the losses come near those of float32, and every trained parameter has a finite gradient."""
    images, masks = bytes_of(2)
    step = step_of(2)
    without_dropout(step)
    step.train()
    wide = combine(step(images, masks), 2)
    step.autocast_dtype = torch.bfloat16
    narrow = combine(step(images, masks), 2)
    torch.autograd.backward(narrow.total)

    # Measured 0.01 %; bfloat16 rounds each number by up to 0.4 %.
    assert narrow.total.item() == pytest.approx(wide.total.item(), rel=0.02)
    for name, parameter in step.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
