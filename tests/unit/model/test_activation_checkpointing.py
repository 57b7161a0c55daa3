from __future__ import annotations

import torch
from torch import nn

from camoxpert_cli.model.activation_checkpointing import checkpoint_activations
from tests.helpers.networks import random_images, small_network


def test_nothing_to_forget() -> None:
    """Without gradients and in eval mode each part runs once and as it is."""
    network = small_network("test_resnet", 2, gradient_checkpointing=True)
    blocks: list[nn.Module] = []
    for block in network.decoder_blocks:
        block.register_forward_pre_hook(lambda module, _: blocks.append(module))
    network.eval()(random_images(1)).logits.mean().backward()
    with torch.no_grad():
        network.train()(random_images(1))

    assert len(blocks) == 8


def test_batches_counted_once() -> None:
    """A recomputed norm has counted its batch once, also where the second pass stops before the module's end."""
    norm = nn.BatchNorm2d(2, momentum=1.0)
    module = nn.Sequential(norm, nn.ReLU(), nn.Conv2d(2, 2, 1))
    x = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)) + 5
    checkpoint_activations(module, x.requires_grad_()).sum().backward()

    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean, x.detach().mean((0, 2, 3)))
