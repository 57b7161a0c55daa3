from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from camoxpert_cli.losses import bce_loss, deep_loss, edge_loss, iou_loss
from tests.benchmarks.counts import counted
from tests.helpers.fake_card import CARD, fake_card

Array = NDArray[np.float64]
Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES = [bce_loss, iou_loss, edge_loss]
SOBEL_X = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])


def example(count: int = 4, size: tuple[int, int] = (11, 14)) -> tuple[Tensor, Tensor]:
    """Logits and masks (B, 1, H, W); the last mask is empty and the one before it full."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 1, *size, generator=generator)
    masks = torch.zeros_like(logits)
    masks[:-2, :, 2:7, 3:9] = 1
    masks[-2] = 1
    return logits, masks


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def plain_bce(logits: Array, mask: Array) -> float:
    p = sigmoid(logits)
    return float(-(mask * np.log(p) + (1 - mask) * np.log(1 - p)).mean())


def plain_iou(logits: Array, mask: Array) -> float:
    p = sigmoid(logits)
    both = (p * mask).sum()
    return float(1 - (both + 1e-5) / (p.sum() + mask.sum() - both + 1e-5))


def strength(image: Array) -> Array:
    height, width = image.shape
    padded = np.pad(image, 1)
    windows = [[padded[i : i + height, j : j + width] for j in range(3)] for i in range(3)]
    x = sum(SOBEL_X[i, j] * windows[i][j] for i in range(3) for j in range(3))
    y = sum(SOBEL_X.T[i, j] * windows[i][j] for i in range(3) for j in range(3))
    return np.sqrt(x**2 + y**2 + 1e-5)


def plain_edge(logits: Array, mask: Array) -> float:
    return float(((strength(sigmoid(logits)) - strength(mask)) ** 2).mean())


@pytest.mark.parametrize(("loss", "plain"), [(bce_loss, plain_bce), (iou_loss, plain_iou), (edge_loss, plain_edge)])
def test_formula(loss: Loss, plain: Callable[[Array, Array], float]) -> None:
    """Each term is its formula, one value for each image, computed here in float64 for one image at a time."""
    logits, masks = example()
    values = loss(logits, masks)
    expected = [
        plain(logit[0].double().numpy(), mask[0].double().numpy()) for logit, mask in zip(logits, masks, strict=True)
    ]

    assert values.shape == (4,)
    # Measured 1.4e-7 of the value.
    assert values.tolist() == pytest.approx(expected, rel=1e-6)


def test_deep_formula() -> None:
    """The deep term is the mean over the heads of the cross-entropy against softly resized masks."""
    _, masks = example(size=(12, 16))
    generator = torch.Generator().manual_seed(1)
    heads = (torch.randn(4, 1, 6, 8, generator=generator), torch.randn(4, 1, 3, 4, generator=generator))
    values = deep_loss(heads, masks)

    # Without corners aligned, halving takes the mean of 2x2 pixels, and a quarter that of the middle 2x2 of 4x4.
    pixels = masks.double().numpy()[:, 0]
    halves = pixels.reshape(4, 6, 2, 8, 2).mean((2, 4))
    quarters = pixels.reshape(4, 3, 4, 4, 4)[:, :, 1:3, :, 1:3].mean((2, 4))
    expected = [
        (
            plain_bce(heads[0][b, 0].double().numpy(), halves[b])
            + plain_bce(heads[1][b, 0].double().numpy(), quarters[b])
        )
        / 2
        for b in range(4)
    ]
    assert set(np.unique(halves)) > {0.0, 0.5, 1.0}
    assert values.shape == (4,)
    assert values.tolist() == pytest.approx(expected, rel=2e-6)


def test_deep_in_float32() -> None:
    """Heads in half precision are widened first: their cross-entropy is that of the same numbers in float32."""
    _, masks = example()
    head = torch.randn(4, 1, 5, 7, generator=torch.Generator().manual_seed(1)).half()

    values = deep_loss((head,), masks)

    assert values.dtype == torch.float32
    assert torch.equal(values, deep_loss((head.float(),), masks))


@pytest.mark.parametrize("loss", LOSSES)
def test_images_do_not_mix(loss: Loss) -> None:
    """An image's value and gradient are the same alone and in any batch."""
    logits, masks = example()
    together = logits.clone().requires_grad_()
    values = loss(together, masks)
    torch.autograd.backward(values.sum())
    for number in range(4):
        alone = logits[number : number + 1].clone().requires_grad_()
        value = loss(alone, masks[number : number + 1])
        torch.autograd.backward(value.sum())

        assert together.grad is not None
        torch.testing.assert_close(value[0], values[number])
        torch.testing.assert_close(alone.grad, together.grad[number : number + 1])


@pytest.mark.parametrize("loss", LOSSES)
def test_perfect(loss: Loss) -> None:
    """A prediction that is right and certain costs nothing, for an empty and a full mask too."""
    _, masks = example()

    assert loss(200 * masks - 100, masks).abs().max() < 1e-6


def test_worst() -> None:
    """A prediction that is wrong and certain costs its logit in cross-entropy and one in overlap."""
    _, masks = example()
    wrong = 100 - 200 * masks

    assert bce_loss(wrong, masks).tolist() == pytest.approx([100] * 4)
    assert iou_loss(wrong, masks).tolist() == pytest.approx([1] * 4, abs=1e-6)


def test_edge_of_nothing() -> None:
    """The edge term sees a missing edge: an empty prediction costs what the mask's own edges amount to."""
    _, masks = example()
    values = edge_loss(torch.full_like(masks, -100), masks)
    expected = [((strength(mask[0].double().numpy()) - np.sqrt(1e-5)) ** 2).mean() for mask in masks]

    assert values.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-10)
    assert values[0] > 0.5


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # torch itself asks for it
def test_edges_on_a_gpu() -> None:
    """No operation goes through the batch image by image, as im2col does."""
    with fake_card():
        masks = torch.rand(2, 1, 8, 8, device=CARD)
        with counted() as counting:
            torch.autograd.backward(edge_loss(masks.clone().requires_grad_(), masks).sum())
    names = " ".join(name for _, name in counting.operations)

    assert "convolution" in names
    assert "im2col" not in names


@pytest.mark.parametrize("loss", [*LOSSES, lambda logits, masks: deep_loss((logits,), masks)])
@pytest.mark.parametrize("size", [15.0, 90.0, 1e4, 1e30])
@pytest.mark.parametrize("sign", ["right", "wrong", "mixed", "zero"])
def test_extreme_logits(loss: Loss, size: float, sign: str) -> None:
    """Values and gradients are finite for any finite logits, and for a map without any edge."""
    logits, masks = example()
    signs = {"right": 2 * masks - 1, "wrong": 1 - 2 * masks, "mixed": logits.sign(), "zero": torch.zeros_like(logits)}
    extreme = (size * signs[sign]).requires_grad_()
    values = loss(extreme, masks)
    torch.autograd.backward(values.sum())

    assert values.isfinite().all()
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


def test_wrong_pixels_have_a_gradient() -> None:
    """However wrong a pixel is, cross-entropy pulls it back with full strength."""
    _, masks = example()
    wrong = (50 * (1 - 2 * masks)).requires_grad_()
    torch.autograd.backward(bce_loss(wrong, masks).sum())

    assert wrong.grad is not None
    torch.testing.assert_close(wrong.grad, (1 - 2 * masks) / masks[0].numel())


def test_an_empty_mask_is_left_to_the_other_terms() -> None:
    """The overlap with nothing is no signal: a term of 1 with hardly a gradient. Cross-entropy has one, downwards."""
    logits = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    masks = torch.zeros(1, 1, 16, 16)
    (iou,), (bce,) = iou_loss(logits, masks), bce_loss(logits, masks)
    (of_iou,) = torch.autograd.grad(iou, logits)
    (of_bce,) = torch.autograd.grad(bce, logits)

    assert iou.item() == pytest.approx(1, abs=1e-6)
    assert of_iou.abs().sum() < 1e-6 * of_bce.abs().sum()
    assert (of_bce > 0).all()


@pytest.mark.parametrize("level", [-200.0, -30.0, -16.5, 0.0, 30.0, 200.0])
def test_an_empty_mask_never_overflows(level: float) -> None:
    """Whatever is predicted, loss and gradient of each term are finite, and that of the overlap at most a quarter."""
    logits = torch.full((2, 1, 16, 16), level, requires_grad=True)
    masks = torch.zeros(2, 1, 16, 16)
    for loss in LOSSES:
        values = loss(logits, masks)
        (gradient,) = torch.autograd.grad(values.sum(), logits)
        assert values.isfinite().all()
        assert gradient.isfinite().all()
        assert loss is not iou_loss or gradient.abs().sum() <= 2 * 0.25 + 1e-6
