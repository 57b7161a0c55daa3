from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from camoxpert_cli.engine.step import TrainingStep
from camoxpert_cli.model.backbone import create_backbone, maps_of, parameters_by_stage
from camoxpert_cli.model.camoxpert import LOGIT_LIMIT, CamoXpert
from camoxpert_cli.model.routing import spread
from tests.helpers.networks import (
    masks_for,
    random_images,
    reference_of,
    small_network,
    spread_routing,
    without_dropout,
)
from tests.helpers.reference_network import reference_loss
from tests.helpers.whole_batch import combine

# Backbone, experts, images, height, width: maps of odd size that come channels last, and every kind of expert, one of
# them twice; a single expert and a single image. tests/slow has more backbones that people train than this one.
CASES = [("test_mambaout", 9, 3, 68, 72), ("test_efficientnet", 1, 1, 64, 96)]
BACKBONES = ["test_resnet", "test_mambaout"]
TRAINED_BY_PEOPLE = "edgenext_xx_small"


def norms_of(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def counts(module: nn.Module) -> list[int]:
    """How many batches each BatchNorm has seen."""
    return [int(norm.num_batches_tracked or 0) for norm in norms_of(module)]


@pytest.mark.parametrize(
    ("backbone", "num_experts", "batch", "height", "width"), [*CASES, (TRAINED_BY_PEOPLE, 2, 1, 96, 64)]
)
def test_parity_in_eval_mode(backbone: str, num_experts: int, batch: int, height: int, width: int) -> None:
    """Logits, deep logits and routing are those of the reference with the same weights, in float32."""
    network = small_network(backbone, num_experts).eval()
    images = random_images(batch, height, width)
    spread_routing(network, images)
    with torch.no_grad():
        output, expected = network(images), reference_of(network)(images)

    # Measured over four seeds: up to 1.0e-4 of the logits' standard deviation, most of it the reference's own rounding:
    # from the same network in float64 it is up to 9e-5 away, and this one up to 3e-5.
    for own, other in zip([output.logits, *output.deep_logits], [expected.logits, *expected.deep_logits], strict=True):
        assert own.shape == other.shape
        assert (own - other).abs().max() < 3e-4 * other.std()
    for routing, chosen, gate_logits in zip(output.routing, expected.top_k_indices, expected.gate_logits, strict=True):
        assert torch.equal(routing.chosen, chosen)
        torch.testing.assert_close(routing.gate_logits, gate_logits, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("backbone", "num_experts", "batch", "height", "width"), CASES)
def test_parity_in_training(backbone: str, num_experts: int, batch: int, height: int, width: int) -> None:
    """The loss, its terms, every gradient and BatchNorm's new statistics are those of the reference."""
    network = small_network(backbone, num_experts).double().train()
    without_dropout(network)
    images = random_images(batch, height, width).double()
    masks = masks_for(images)
    spread_routing(network, images)
    reference = reference_of(network)
    without_dropout(reference)
    step = TrainingStep(network, deep_supervision=True, autocast_dtype=None)
    step.normalize = nn.Identity()  # type: ignore[assignment]

    loss = combine(step(images, masks), network.top_k)
    torch.autograd.backward(loss.total)
    expected = reference_loss(reference(images), masks)
    torch.autograd.backward(expected["total"])

    # Measured over three seeds: terms 1e-15; gradients 6e-12 of their own norm or, for biases in front of a
    # BatchNorm, which have none but rounding errors, 2e-15 of the largest norm of all.
    for name, term in expected.items():
        torch.testing.assert_close(getattr(loss, name), term, rtol=1e-12, atol=0, msg=name)
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    largest = max(gradient.norm() for gradient in gradients.values() if gradient is not None)
    for name, parameter in network.named_parameters():
        gradient = gradients[name]
        assert (parameter.grad is None) == (gradient is None), name
        if parameter.grad is not None and gradient is not None:
            assert (parameter.grad - gradient).norm() <= 1e-9 * gradient.norm() + 1e-12 * largest, name
    for (name, own), other in zip(network.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12, msg=name)


def test_size_of_default_network() -> None:
    """With edgenext_base and seven experts the parts have the parameters that the original has, in millions."""
    with torch.device("meta"):
        network = CamoXpert(create_backbone("edgenext_base"), "edgenext_base")
    parts: list[nn.Module] = [network, network.backbone, network.moe_layers, network.decoder_blocks]
    sizes = [round(sum(parameter.numel() for parameter in part.parameters()) / 1e6, 2) for part in parts]

    assert sizes == [30.95, 17.93, 8.64, 4.20]


@pytest.mark.parametrize("training", [False, True])
def test_shapes(training: bool) -> None:
    """Logits are as large as the image, deep logits as the maps at strides 16, 8 and 4; each layer is routed."""
    network = small_network("test_convnext", 3).train(training)
    with torch.no_grad():
        output = network(random_images(2, 70, 131))

    assert output.logits.shape == (2, 1, 70, 131)
    assert [tuple(deep.shape) for deep in output.deep_logits] == [(2, 1, 4, 8), (2, 1, 8, 16), (2, 1, 17, 32)]
    assert [tuple(layer.chosen.shape) for layer in output.routing] == [(2, 2)] * 4


def test_images_alone_in_eval_mode() -> None:
    """In eval mode an image's logits do not depend on the images beside it."""
    network = small_network(num_experts=5).eval()
    images = random_images(3)
    spread_routing(network, images)
    with torch.no_grad():
        together = network(images).logits
        alone = torch.cat([network(image[None]).logits for image in images])

    # Measured 3.5e-6 of logits with standard deviation 0.7.
    torch.testing.assert_close(together, alone, rtol=0, atol=5e-5)


def test_clamp_in_eval_mode_alone() -> None:
    """Outputs are clamped to 15 in eval mode; in training they are not, and wrong pixels beyond it have a gradient."""
    network = small_network(num_experts=2)
    with torch.no_grad():
        for last in [network.final_conv[-1], *network.deep_heads]:
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            last.bias.fill_(60)
    images = random_images(2)
    output = network.train()(images)
    outputs = [output.logits, *output.deep_logits]
    loss = torch.stack(
        [nn.functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)) for logits in outputs]
    ).sum()
    gradients = torch.autograd.grad(loss, outputs)
    with torch.no_grad():
        clamped = network.eval()(images)

    for logits, gradient in zip(outputs, gradients, strict=True):
        assert logits.min() > LOGIT_LIMIT
        torch.testing.assert_close(gradient, torch.full_like(gradient, 1 / gradient.numel()))
    for logits in (clamped.logits, *clamped.deep_logits):
        assert (logits == LOGIT_LIMIT).all()


def test_clamp_of_low_logits() -> None:
    """In eval mode logits far below are clamped to -15."""
    network = small_network(num_experts=2).eval()
    last = network.final_conv[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        last.bias.fill_(-60)

        assert (network(random_images(1)).logits == -LOGIT_LIMIT).all()


@pytest.mark.parametrize("backbone", [*BACKBONES, TRAINED_BY_PEOPLE])
def test_parameters_by_stage(backbone: str) -> None:
    """Each parameter is in one of four groups; a change in the groups from s on changes maps s and later alone."""
    module = create_backbone(backbone).eval()
    groups = parameters_by_stage(module, backbone)
    images = random_images(1)

    found = sorted(id(parameter) for group in groups for parameter in group)
    assert found == sorted(id(parameter) for parameter in module.parameters())
    assert all(groups)
    with torch.no_grad():
        before = maps_of(module, images)
        for stage in (3, 2, 1, 0):
            for parameter in groups[stage]:
                parameter.add_(0.1 * torch.randn_like(parameter))
            after = maps_of(module, images)
            same = [torch.equal(own, other) for own, other in zip(before, after, strict=True)]
            assert same == [True] * stage + [False] * (4 - stage)


@pytest.mark.parametrize("backbone", BACKBONES[:1])
def test_set_trainable(backbone: str) -> None:
    """The last stages of the backbone train, more with each, and always everything behind it."""
    network = small_network(backbone, 2)
    groups = parameters_by_stage(network.backbone, backbone)
    in_backbone = {id(parameter) for parameter in network.backbone.parameters()}

    for backbone_stages in (4, 0, 1, 2, 3):
        network.set_trainable(backbone_stages, deep_heads=True)
        expected = {id(parameter) for group in groups[4 - backbone_stages :] for parameter in group}
        trained = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
        assert trained & in_backbone == expected
        assert trained - in_backbone == {id(parameter) for parameter in network.parameters()} - in_backbone


@pytest.mark.parametrize(
    ("backbone", "backbone_stages"), [("test_resnet", 0), ("test_resnet", 4), ("test_mambaout", 2)]
)
def test_every_trained_parameter_has_a_gradient(backbone: str, backbone_stages: int) -> None:
    """Where all experts are used, each trained parameter gets a finite gradient, and each frozen one gets none."""
    network = small_network(backbone, 2).train()
    network.set_trainable(backbone_stages, deep_heads=True)
    images = random_images(2)
    step = TrainingStep(network, deep_supervision=True, autocast_dtype=None)
    losses = combine(step((images * 40 + 128).clamp(0, 255).byte(), masks_for(images)), network.top_k)
    torch.autograd.backward(losses.total)

    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_every_kind_of_expert_has_a_gradient() -> None:
    """With all seven kinds in use, no parameter is without a gradient, and none but biases before a norm is at zero."""
    network = small_network("test_resnet", 7).train()
    with spread(network):
        output = network(random_images(3))
    loss = output.logits.square().mean()
    for deep in output.deep_logits:
        loss = loss + deep.square().mean()
    loss.backward()

    assert all(len(layer.chosen.unique()) == 7 for layer in output.routing)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_deep_heads_frozen() -> None:
    """Without deep supervision its heads do not train; with it they do again."""
    network = small_network(num_experts=2)

    network.set_trainable(4, deep_heads=False)
    assert not any(parameter.requires_grad for parameter in network.deep_heads.parameters())
    network.set_trainable(4, deep_heads=True)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("backbone", BACKBONES[:1])
def test_frozen_backbone(backbone: str) -> None:
    """A frozen backbone builds no graph and stays in eval mode, its norms' statistics at rest, also after eval()."""
    network = small_network(backbone, 2).train()
    network.set_trainable(0, deep_heads=True)
    network.eval()
    network.train()
    before = counts(network)
    maps: list[Tensor] = []
    network.backbone.register_forward_hook(lambda _, __, output: maps.extend(output))
    statistics = [buffer.clone() for buffer in network.backbone.buffers()]
    network(random_images(2)).logits.mean().backward()

    assert len(maps) == 4
    assert not any(features.requires_grad for features in maps)
    assert not any(module.training for module in network.backbone.modules())
    assert all(map(torch.equal, statistics, network.backbone.buffers()))
    behind = len(counts(network)) - len(counts(network.backbone))
    assert sum(counts(network)) == sum(before) + behind


def test_thawed_backbone() -> None:
    """Stages that were frozen at first learn once they are to train, and their norms count batches again."""
    network = small_network("test_resnet", 2).train()
    network.backbone.requires_grad_(False)  # as whoever used the network before may have left it
    network.set_trainable(0, deep_heads=True)
    network.set_trainable(2, deep_heads=True)
    before = counts(network.backbone)
    network(random_images(2)).logits.square().mean().backward()

    thawed = [parameter for group in network.backbone_stages[2:] for parameter in group]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in thawed)
    trained = [any(part.requires_grad for part in norm.parameters()) for norm in norms_of(network.backbone)]
    assert counts(network.backbone) == [count + more for count, more in zip(before, trained, strict=True)]


def test_partly_frozen_backbone() -> None:
    """Norms of frozen stages keep their statistics while those of trained stages move, also after eval()."""
    network = small_network("test_resnet", 2)
    network.set_trainable(1, deep_heads=True)
    network.eval()
    network.train()
    frozen = [not any(part.requires_grad for part in norm.parameters()) for norm in norms_of(network.backbone)]
    before = [norm.running_mean.clone() for norm in norms_of(network.backbone) if norm.running_mean is not None]
    network(random_images(2))
    after = [norm.running_mean for norm in norms_of(network.backbone) if norm.running_mean is not None]

    same = [torch.equal(own, other) for own, other in zip(before, after, strict=True)]
    assert same == frozen
    assert True in same
    assert False in same


def test_frozen_backbone_drops_nothing() -> None:
    """Drop path is off in a frozen backbone, and on again once it trains."""
    torch.manual_seed(0)
    module = timm.create_model("test_convnext", features_only=True, out_indices=(0, 1, 2, 3), drop_path_rate=0.5)
    network = CamoXpert(module, "test_convnext", 1).train()
    images = random_images(4)

    def deepest_maps() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return network._backbone_maps(images)[-1], network._backbone_maps(images)[-1]

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(1)  # what may be dropped is scaled by 1e-6 before training
    network.set_trainable(0, deep_heads=True)
    assert torch.equal(*deepest_maps())
    network.set_trainable(4, deep_heads=True)
    assert not torch.equal(*deepest_maps())


@pytest.mark.parametrize("keep", [True, False])
def test_statistics_of_a_pretrained_backbone(keep: bool) -> None:
    """Where they are to be kept, the backbone's statistics rest while its weights train; the decoder's never do."""
    network = small_network("test_resnet", 2)
    network.keep_backbone_statistics = keep
    network.set_trainable(4, deep_heads=True)
    network.train()
    before = counts(network.backbone)
    decoder_before = counts(network.decoder_blocks)
    network(random_images(2)).logits.mean().backward()

    assert (counts(network.backbone) == before) == keep
    assert counts(network.decoder_blocks) != decoder_before
    assert all(parameter.grad is not None for parameter in network.backbone.parameters())
