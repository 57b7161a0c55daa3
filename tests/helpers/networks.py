"""Small networks in which no weight is at rest, the plain reference with the same weights, and images for both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.moe import MixtureOfExperts
from tests.helpers.reference_network import ReferenceCamoXpert


def random_images(count: int, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """(B, 3, H, W), normalized, and as unlike each other as images are."""
    generator = torch.Generator().manual_seed(seed)
    contrast = torch.rand(count, 3, 1, 1, generator=generator) + 0.5
    brightness = torch.randn(count, 3, 1, 1, generator=generator)
    return contrast * torch.randn(count, 3, height, width, generator=generator) + brightness


def masks_for(images: Tensor) -> Tensor:
    """(B, 1, H, W) of 0 and 1: a rectangle in each image, another in each."""
    masks = torch.zeros_like(images[:, :1])
    height, width = masks.shape[-2:]
    for number, mask in enumerate(masks):
        mask[:, 3 + number : height // 2, 5 : width // 3 + 4 * number] = 1
    return masks


def small_network(
    backbone: str = "test_resnet", num_experts: int = 7, *, seed: int = 0, gradient_checkpointing: bool = False
) -> CamoXpert:
    """A network whose every parameter and running statistic differs from its initial constant."""
    torch.manual_seed(seed)
    network = CamoXpert(create_backbone(backbone), backbone, num_experts, gradient_checkpointing=gradient_checkpointing)
    stir(network)
    return network


@torch.no_grad()
def stir(network: nn.Module) -> None:
    """Move vectors and running statistics off the constants they start from (layer scales start at 1e-6).

    Kernels behind the backbone are doubled: from torch's initial ones the logits hardly vary over an image. Those
    that start at zero get the numbers that torch would give them.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4 and not name.startswith("backbone."):
            if not parameter.any():
                nn.init.kaiming_uniform_(parameter, a=5**0.5)
            parameter.mul_(2)
        elif parameter.ndim == 1:
            constant = 0.0 if name.endswith("bias") else 1.0
            parameter.copy_(constant + 0.1 * torch.randn_like(parameter))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


@torch.no_grad()
def spread_routing(network: CamoXpert, images: Tensor) -> None:
    """Set the gates so that these images are routed to many experts."""

    def centre(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, MixtureOfExperts)
        gate = layer.gate[1]
        assert isinstance(gate, nn.Conv2d)
        assert gate.bias is not None
        logits = inputs[0].mean((-2, -1)) @ gate.weight.flatten(1).t()
        scale = 1 / logits.std(dim=0).mean() if len(images) > 1 else torch.ones(())
        gate.weight.mul_(scale)
        gate.bias.copy_(0.5 * torch.randn_like(gate.bias) - scale * logits.mean(dim=0))

    hooks = [layer.register_forward_pre_hook(centre) for layer in network.moe_layers]
    network(images)
    for hook in hooks:
        hook.remove()


def without_dropout(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def reference_of(network: CamoXpert) -> ReferenceCamoXpert:
    """The plain network with the same weights, in the same mode and dtype."""
    reference = ReferenceCamoXpert(network.backbone_name, network.num_experts)
    reference.to(next(network.parameters()).dtype).load_state_dict(network.state_dict())
    return reference.train(network.training)
