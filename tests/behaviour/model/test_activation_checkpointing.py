from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.networks import random_images, small_network


def trained_once(network: CamoXpert) -> list[Tensor]:
    """The outputs of a training pass from one random state."""
    network.train()
    torch.manual_seed(3)
    output = network(random_images(2))
    loss = output.logits.square().mean()
    for deep in output.deep_logits:
        loss = loss + deep.square().mean()
    loss.backward()
    return [output.logits.detach(), *(deep.detach() for deep in output.deep_logits)]


@pytest.mark.parametrize("backbone_stages", [2, 0])
def test_same_as_without(backbone_stages: int) -> None:
    """Outputs, gradients, BatchNorm's running statistics and its count of batches are those without checkpointing.

    Dropout is active, and BatchNorm in the backbone (some or all of it frozen), decoder and head.
    """
    plain = small_network("test_resnet", 2)
    plain.set_trainable(backbone_stages, deep_heads=True)
    checkpointed = deepcopy(plain)
    checkpointed.gradient_checkpointing = True

    for own, other in zip(trained_once(checkpointed), trained_once(plain), strict=True):
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
