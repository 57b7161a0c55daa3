"""What behaviour/model shows of timm's smallest models, of backbones that people train: a second or two each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.model import test_camoxpert as network
from tests.unit.model import test_backbone as backbones

# Backbone, experts, images, height, width. Together: 1, 2, 5, 7 and 9 experts; 1, 2 and 5 images; maps of odd
# size; channels that 8 or 4 do not divide and a stage of 64 (edgenext_x_small: 32/64/100/192); maps that come
# channels last (mambaout_femto).
CASES = [
    ("test_resnet", 7, 5, 64, 64),
    ("test_resnet", 9, 2, 100, 100),
    ("test_resnet", 1, 1, 64, 96),
    ("edgenext_xx_small", 5, 5, 64, 64),
    ("edgenext_xx_small", 2, 1, 96, 64),
    ("edgenext_x_small", 7, 2, 76, 68),
    ("mambaout_femto", 7, 2, 64, 64),
    ("tf_efficientnet_lite0", 7, 2, 72, 64),
]
BACKBONES = ["edgenext_xx_small", "tf_efficientnet_lite0", "mambaout_femto"]


@pytest.mark.parametrize(("backbone", "num_experts", "batch", "height", "width"), CASES)
def test_parity_in_eval_mode(backbone: str, num_experts: int, batch: int, height: int, width: int) -> None:
    """Logits, deep logits and routing are those of the reference."""
    network.test_parity_in_eval_mode(backbone, num_experts, batch, height, width)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("backbone", "num_experts", "batch", "height", "width"), CASES)
def test_parity_in_training(backbone: str, num_experts: int, batch: int, height: int, width: int) -> None:
    """Loss, gradients and new statistics are those of the reference."""
    network.test_parity_in_training(backbone, num_experts, batch, height, width)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_stages(backbone: str) -> None:
    """They are found, train as far as they are asked to, and rest otherwise."""
    network.test_parameters_by_stage(backbone)
    network.test_set_trainable(backbone)
    network.test_every_trained_parameter_has_a_gradient(backbone, 2)
    network.test_frozen_backbone(backbone)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps(backbone: str) -> None:
    """There are four, at strides 4 to 32."""
    backbones.test_maps(backbone)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_file(tmp_path: Path, backbone: str, suffix: str) -> None:
    """Both formats give exactly the classifier's weights."""
    backbones.test_weights_from_file(tmp_path, backbone, suffix)


@pytest.mark.parametrize("other", ["edgenext_xx_small", "edgenext_small", "tf_efficientnet_lite0"])
def test_weights_of_another_model(tmp_path: Path, other: str) -> None:
    """They are refused, those of another size of the same family too."""
    backbones.test_weights_of_another_model(tmp_path, "edgenext_x_small", other)
