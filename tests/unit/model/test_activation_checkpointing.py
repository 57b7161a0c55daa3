from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.model.activation_checkpointing import checkpoint_activations
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.networks import random_images, small_network


def train_twice(network: CamoXpert) -> list[Tensor]:
    """The outputs of two training passes from one random state; gradients add up in the network."""
    network.train()
    torch.manual_seed(3)
    outputs = []
    for number in range(2):
        output = network(random_images(2, seed=number))
        loss = output.logits.square().mean() + output.balance
        for deep in output.deep_logits:
            loss = loss + deep.square().mean()
        loss.backward()
        outputs += [output.logits.detach(), *(deep.detach() for deep in output.deep_logits)]
    return outputs


@pytest.mark.parametrize("backbone_stages", [4, 2, 0])
def test_same_as_without(backbone_stages: int) -> None:
    """Outputs, gradients, BatchNorm's running statistics and its count of batches are those without checkpointing.

    Dropout is active, and BatchNorm in the backbone (some of it frozen in two of the cases), decoder and head.
    """
    plain = small_network("test_resnet", 2)
    plain.set_trainable(backbone_stages, deep_heads=True)
    checkpointed = deepcopy(plain)
    checkpointed.gradient_checkpointing = True

    for own, other in zip(train_twice(checkpointed), train_twice(plain), strict=True):
        assert torch.equal(own, other)
    for (name, own), other in zip(checkpointed.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(own, other), name
    for (name, parameter), twin in zip(checkpointed.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, twin[1].grad, msg=name)


def test_activations_are_forgotten() -> None:
    """With gradient checkpointing the backward pass runs backbone, mixtures and decoder again, else it does not."""
    calls: dict[bool, int] = {}
    for checkpointing in (False, True):
        network = small_network("test_resnet", 2, gradient_checkpointing=checkpointing).train()
        parts = [network.backbone, *network.moe_layers, *network.decoder_blocks]
        seen: list[nn.Module] = []
        for part in parts:
            part.register_forward_pre_hook(lambda module, _, seen=seen: seen.append(module))
        network(random_images(1)).logits.mean().backward()
        calls[checkpointing] = len(seen)

    assert calls == {False: 9, True: 18}


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
