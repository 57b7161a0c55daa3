from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.model.backbone import create_backbone, maps_of
from camoxpert_cli.model.backbone_layers import CachedPositionalEncoding, replace_layers
from camoxpert_cli.model.layers import LayerNorm
from tests.helpers.networks import random_images

NAME = "edgenext_xx_small"


@pytest.fixture
def backbones() -> tuple[nn.Module, nn.Module]:
    """The same weights with timm's layers and with ours."""
    torch.manual_seed(0)
    plain = create_backbone(NAME)
    own = deepcopy(plain)
    replace_layers(own)
    return plain, own


def encoding_of(backbone: nn.Module) -> CachedPositionalEncoding:
    (encoding,) = (part for part in backbone.modules() if isinstance(part, CachedPositionalEncoding))
    return encoding


def test_same_results(backbones: tuple[nn.Module, nn.Module]) -> None:
    """Feature maps, state dict and gradients are those of timm's layers, for several sizes in turn."""
    plain, own = backbones
    for height, width in ((64, 96), (96, 64), (64, 96)):
        images = random_images(2, height, width)
        for one, two in zip(maps_of(plain, images), maps_of(own, images), strict=True):
            torch.testing.assert_close(one, two)
    for backbone in backbones:
        means = [features.square().mean() for features in maps_of(backbone, random_images(2))]
        torch.autograd.backward(torch.stack(means).sum())

    assert list(own.state_dict()) == list(plain.state_dict())
    assert sum(isinstance(part, LayerNorm) for part in own.modules()) > 10
    for (name, one), two in zip(own.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_nothing_is_computed_again(backbones: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass at a size makes no tensor on the host, in copies and after a prediction as well."""
    _, own = backbones
    with torch.inference_mode():
        maps_of(own, random_images(1))
    made: list[object] = []
    zeros = torch.zeros

    def counted(*size: object, **options: object) -> Tensor:
        made.append(size)
        return zeros(*size, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "zeros", counted)
    for backbone in (own, deepcopy(own)):
        sums = [features.sum() for features in maps_of(backbone, random_images(2))]
        torch.autograd.backward(torch.stack(sums).sum())
        assert made == []
    maps_of(own, random_images(2, 96, 64))

    assert len(made) == 1


def test_dtype_changes(backbones: tuple[nn.Module, nn.Module]) -> None:
    """An encoding that was computed in float32 does not serve a network that is float64 since."""
    plain, own = backbones
    images = random_images(1)
    maps_of(own, images)
    own.double()
    plain.double()

    for one, two in zip(maps_of(plain, images.double()), maps_of(own, images.double()), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    assert len(encoding_of(own)._waves) == 2
