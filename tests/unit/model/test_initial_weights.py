from __future__ import annotations

import pytest
import torch
from torch import nn

from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.decoder import DecoderBlock
from camoxpert_cli.model.experts import AttentionExpert
from camoxpert_cli.model.initial_weights import FOREGROUND, GATE
from camoxpert_cli.model.routing import spread
from tests.helpers.networks import random_images


@pytest.fixture(scope="module")
def fresh() -> CamoXpert:
    torch.manual_seed(0)
    return CamoXpert(create_backbone("test_resnet"), "test_resnet", 7)


@torch.no_grad()
def test_most_of_an_image_is_background(fresh: CamoXpert) -> None:
    """Before any training the mean of the map is near the share that animals cover, in the side outputs too."""
    output = fresh.train()(random_images(4))
    means = [logits.sigmoid().mean().item() for logits in (output.logits, *output.deep_logits)]

    # A head adds a projection of its features, of deviation about one, to the logit of that share.
    assert all(FOREGROUND / 2 < mean < 2.5 * FOREGROUND for mean in means)


@torch.no_grad()
def test_gates_start_nearly_closed(fresh: CamoXpert) -> None:
    """Both gates let the same share of everything pass, so that features keep their pattern."""
    gate = fresh.sdta_blocks[0]
    x = torch.randn(2, fresh.backbone.feature_info.channels()[0], 7, 5)  # type: ignore[operator, union-attr]

    torch.testing.assert_close(gate(x), GATE**2 * x)


@torch.no_grad()
def test_attention_starts_as_the_identity() -> None:
    """At any size of image the attention expert adds nothing at first: its sum over pixels would drown its input."""
    torch.manual_seed(0)
    expert = AttentionExpert(16)
    x = torch.randn(2, 16, 40, 40)

    assert not expert(x).any()
    nn.init.kaiming_uniform_(expert.attention.proj.weight, a=5**0.5)
    # Over forty seeds it is 37 times as much and more.
    assert expert.eval()(x).square().mean() > 20 * x.square().mean()


def test_all_of_it_learns(fresh: CamoXpert) -> None:
    """Zeros do not stay zeros: the first gradient moves every layer that starts at zero."""
    fresh.train().zero_grad()
    with spread(fresh):  # three images use all experts
        output = fresh(random_images(3))
    output.logits.square().mean().backward()
    for block in fresh.sdta_blocks:
        for name in ("channel_attention.3.weight", "spatial_attention.0.weight"):
            gradient = block.get_parameter(name).grad
            assert gradient is not None
            assert gradient.abs().max() > 0
    experts = [module for module in fresh.modules() if isinstance(module, AttentionExpert)]
    gradients = [expert.attention.proj.weight.grad for expert in experts]

    assert len(gradients) == 4
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


@torch.no_grad()
def test_kernels_before_batch_norm_are_small() -> None:
    """A quarter of torch's own size, and the same output: BatchNorm takes the size out."""
    torch.manual_seed(0)
    block = DecoderBlock(8, 4, 16)
    kernels = [block.conv[0], block.conv[3]]
    x, skip = torch.randn(2, 8, 6, 6), torch.randn(2, 4, 12, 12)
    output = block.train()(x, skip)
    for kernel in kernels:
        assert isinstance(kernel, nn.Conv2d)
        # torch draws evenly up to one over the root of what a pixel is summed over.
        bound = kernel.weight[0].numel() ** -0.5
        assert 0.2 * bound < kernel.weight.abs().max() <= 0.25 * bound
        kernel.weight.mul_(4)
        kernel.bias.zero_()  # type: ignore[union-attr]

    # BatchNorm adds 1e-5 to a variance that is a sixteenth of what it was.
    torch.testing.assert_close(block(x, skip), output, atol=2e-2, rtol=0)
