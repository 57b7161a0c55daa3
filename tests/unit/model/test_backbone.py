from __future__ import annotations

import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from camoxpert_cli.errors import CheckpointError, ConfigError
from camoxpert_cli.model import backbone as backbone_module
from camoxpert_cli.model.backbone import (
    create_backbone,
    create_pretrained_backbone,
    maps_of,
    normalization_of,
    parameters_by_stage,
)
from tests.helpers.networks import stir

# DLA has more maps than timm returns unless asked, and the first of them is not among those.
BACKBONES = ["edgenext_xx_small", "test_resnet", "test_efficientnet", "test_mambaout", "dla46_c"]


def whole_model(name: str = "test_resnet") -> nn.Module:
    """timm's classifier, every weight off its initial constant."""
    torch.manual_seed(7)
    model: nn.Module = timm.create_model(name)
    stir(model)
    return model


def save(weights: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


def same_weights(backbone: nn.Module, weights: dict[str, Tensor]) -> bool:
    """Whether each tensor of a feature extractor is the classifier's: `stages.0` there is `stages_0` here."""
    by_name = {name.replace(".", "_"): value for name, value in weights.items()}
    return all(torch.equal(value, by_name[name.replace(".", "_")]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", BACKBONES)
def test_maps(name: str) -> None:
    """Four maps (B, C, H, W) at strides 4, 8, 16 and 32 with the channels that the backbone claims."""
    backbone = create_backbone(name).eval()
    info: Any = backbone.feature_info
    with torch.no_grad():
        maps = maps_of(backbone, torch.zeros(2, 3, 128, 64))

    expected = [
        (2, channels, 128 // stride, 64 // stride)
        for channels, stride in zip(info.channels(), (4, 8, 16, 32), strict=True)
    ]
    assert [tuple(features.shape) for features in maps] == expected


def test_building_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timm that reads weights while it builds, as older ones do, gives a backbone too."""
    create = timm.create_model

    def old_create(*args: Any, **kwargs: Any) -> nn.Module:
        torch.linspace(0, 1, 2).tolist()
        if torch.get_default_device().type == "meta":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", old_create)
    for each in (backbone_module.sketch_backbone, backbone_module._first_sketch, backbone_module._indices_of_strides):
        monkeypatch.setattr(backbone_module, each.__name__, cache(each.__wrapped__))  # nothing is known yet

    assert not next(backbone_module.sketch_backbone("test_resnet").parameters()).is_meta
    assert next(create_backbone("test_resnet").parameters()).device.type == "cpu"


def test_unknown_name() -> None:
    """A name that timm does not know is refused with the nearest names it knows."""
    with pytest.raises(ConfigError) as caught:
        create_backbone("edgenext_bose")

    assert "no backbone named edgenext_bose" in caught.value.message
    assert "edgenext_base" in caught.value.message


def test_hopeless_name() -> None:
    """Where no name is near, none is suggested."""
    with pytest.raises(ConfigError) as caught:
        create_backbone("qqqqqqqqqq")

    assert "did you mean" not in caught.value.message
    assert "edgenext_base" in caught.value.hint


@pytest.mark.parametrize("create", [create_backbone, lambda name: create_pretrained_backbone(name, None)])
def test_missing_strides(create: Callable[[str], nn.Module]) -> None:
    """A model without maps at all four strides is refused by its name, with the strides it has."""
    with pytest.raises(
        ConfigError, match=r"backbone vit_tiny_patch16_224 has feature maps at strides \[16\], .*\[4, 8, 32\]"
    ):
        create("vit_tiny_patch16_224")


def test_no_feature_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that timm cannot turn into a feature extractor is refused by its name."""

    def refuse(*_: Any, **__: Any) -> nn.Module:
        raise RuntimeError("features_only not implemented")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ConfigError, match="backbone test_resnet cannot return feature maps: features_only"):
        create_backbone("test_resnet")


def test_fixed_size() -> None:
    """A model for images of one size is refused by its name, and left in the mode it was in."""
    backbone = create_backbone("test_maxvit").train()
    with pytest.raises(ConfigError, match="backbone test_maxvit only supports one fixed image size"):
        parameters_by_stage(backbone, "test_maxvit")

    assert backbone.training


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("edgenext_xx_small", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_normalization(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Images are normalized by what the backbone was trained with, which is not ImageNet's for all."""
    statistics = normalization_of(create_backbone(name))

    assert statistics.mean == mean
    assert statistics.std == std


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("test_resnet", ".pth"), ("test_efficientnet", ".safetensors")],
)
def test_weights_from_file(tmp_path: Path, name: str, suffix: str) -> None:
    """The backbone has exactly the weights of a saved classifier, its running statistics too."""
    weights = whole_model(name).state_dict()
    backbone = create_pretrained_backbone(name, save(weights, tmp_path / f"weights{suffix}"))

    assert same_weights(backbone, weights)
    assert not same_weights(create_backbone(name), weights)


@pytest.mark.parametrize("change", ["no classifier", "other classes", "half precision", "state_dict", "model"])
def test_variants_of_files(tmp_path: Path, change: str) -> None:
    """The classifier may be missing or have other classes, numbers may be float16, and the weights may be wrapped."""
    weights: Any = whole_model().state_dict()
    content = weights
    if change == "no classifier":
        content = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    elif change == "other classes":
        content = {name: value[:10] if name.startswith("fc.") else value for name, value in weights.items()}
    elif change == "half precision":
        content = weights = {name: value.half() if value.ndim > 1 else value for name, value in weights.items()}
        weights = {name: value.float() if value.ndim > 1 else value for name, value in weights.items()}
    else:
        content = {change: weights, "epoch": 3}

    assert same_weights(create_pretrained_backbone("test_resnet", save(content, tmp_path / "weights.pth")), weights)


def test_fresh_weights_from_file(tmp_path: Path) -> None:
    """Weights that are still at the constants they start from are weights as good as any."""
    torch.manual_seed(7)
    weights = timm.create_model("test_convnext").state_dict()

    assert same_weights(create_pretrained_backbone("test_convnext", save(weights, tmp_path / "w.pth")), weights)


def test_file_is_not_kept(tmp_path: Path) -> None:
    """The file's weights are not carried along beside the backbone's own."""
    path = save(whole_model().state_dict(), tmp_path / "weights.pth")

    assert "state_dict" not in create_pretrained_backbone("test_resnet", path).pretrained_cfg  # type: ignore[operator]


def test_random_state_after_file(tmp_path: Path) -> None:
    """What is random after the backbone does not depend on the file: the random state is that of one build."""
    path = save(whole_model().state_dict(), tmp_path / "weights.pth")
    after = []
    for create in (create_backbone, lambda name: create_pretrained_backbone(name, path)):
        torch.manual_seed(0)
        create("test_resnet")
        after.append(torch.rand(1).item())

    assert after[0] == after[1]


def test_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """timm does not warn of the classifier's weights, which no backbone needs."""
    weights = whole_model("test_efficientnet").state_dict()
    create_pretrained_backbone("test_efficientnet", save(weights, tmp_path / "weights.pth"))

    assert caplog.text == ""


@pytest.mark.parametrize("lacking", ["layer3.", "conv1.", "layer2.0.bn1.", "layer4.0.bn2.running_mean"])
def test_incomplete_file(tmp_path: Path, lacking: str) -> None:
    """A file that lacks a stage, a layer or a single tensor is refused, and what it lacks is named."""
    weights = {name: value for name, value in whole_model().state_dict().items() if not name.startswith(lacking)}
    path = save(weights, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError) as caught:
        create_pretrained_backbone("test_resnet", path)

    assert "does not match backbone test_resnet: it has no values for" in caught.value.message
    assert lacking in caught.value.message
    assert caught.value.hint == "pass timm's weights for test_resnet"


@pytest.mark.parametrize(("name", "other"), [("test_convnext", "test_convnext2"), ("test_efficientnet", "test_resnet")])
def test_weights_of_another_model(tmp_path: Path, name: str, other: str) -> None:
    """Weights of another model, of the same family too, are refused."""
    path = save(timm.create_model(other).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=f"does not match backbone {name}"):
        create_pretrained_backbone(name, path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"<html>not found</html>", b"PK\x03\x04 torn"])
def test_garbage(tmp_path: Path, suffix: str, content: bytes) -> None:
    """A file that is no weights at all is refused by its path."""
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError,
        match=f"weights{suffix} (is empty|is corrupt|is not a weights file|contains pickled objects)",
    ):
        create_pretrained_backbone("test_resnet", path)


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"model": {}}, {"epoch": 3}, {"state_dict": {"a": "b"}}, {1: 2.0}, torch.zeros(3)]
)
def test_no_state_dict(tmp_path: Path, content: Any) -> None:
    """A file of something other than tensors by name is refused by its path."""
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"weights\.pth contains no state dict"):
        create_pretrained_backbone("test_resnet", path)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_mambaout"])
@pytest.mark.parametrize("weights", [{"a": torch.ones(3)}, {1: torch.ones(3)}])
def test_foreign_state_dict(tmp_path: Path, weights: dict[Any, Tensor], name: str) -> None:
    """Tensors of no timm model never leave the backbone random."""
    path = tmp_path / "weights.pth"
    torch.save(weights, path)
    with pytest.raises(CheckpointError):
        create_pretrained_backbone(name, path)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is refused by its path, and so is a folder."""
    with pytest.raises(CheckpointError, match=r"file not found: .*weights\.pth"):
        create_pretrained_backbone("test_resnet", tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        create_pretrained_backbone("test_resnet", tmp_path)


def test_damaged_weights(tmp_path: Path) -> None:
    """One flipped bit in a backbone's weights is noticed."""
    path = save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is corrupt"):
        create_pretrained_backbone("test_resnet", path)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> socket.socket:
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(backbone_module, "getproxies", dict)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "reason", ["We couldn't connect to the hub\nfor many reasons", "Not on the disk. Set local_files_only.", ""]
)
def test_no_network(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """Where weights cannot be fetched, the options that help are named; the backbone is not left random.

    timm is told to look at its cache alone, for that once.
    """
    create = timm.create_model
    offline: list[bool] = []

    def without_hub(*args: Any, **kwargs: Any) -> nn.Module:
        if kwargs.get("pretrained"):
            offline.append(constants.HF_HUB_OFFLINE)
            raise OSError(reason)
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ConfigError) as caught:
        create_pretrained_backbone("test_resnet", None)

    assert "test_resnet" in caught.value.message
    assert caught.value.message.endswith(f": {(reason.splitlines() or ['OSError'])[0].partition('. ')[0]}")
    assert "\n" not in caught.value.message
    assert "--backbone-weights" in caught.value.hint
    assert "--no-pretrained" in caught.value.hint
    assert offline == [True]
    assert constants.HF_HUB_OFFLINE is False


def test_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub answers, timm may ask it."""
    create = timm.create_model
    offline: list[bool] = []

    def with_hub(*args: Any, **kwargs: Any) -> nn.Module:
        if kwargs.pop("pretrained", False):
            offline.append(constants.HF_HUB_OFFLINE)
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", with_hub)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    create_pretrained_backbone("test_resnet", None)

    assert offline == [False]


def test_no_weights_published() -> None:
    """A model for which timm has no weights is refused, with the options that help."""
    name = "mnasnet_050"
    assert timm.is_model(name)
    assert not timm.get_pretrained_cfg(name) or not timm.get_pretrained_cfg(name).has_weights
    with pytest.raises(ConfigError, match=f"timm has no pretrained weights for backbone {name}") as caught:
        create_pretrained_backbone(name, None)

    assert "--backbone-weights" in caught.value.hint
    assert "--no-pretrained" in caught.value.hint


@pytest.mark.parametrize("offline", [True, False])
def test_the_hub_is_what_it_was(monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    """Whoever told the hub's client to stay offline finds it so after weights were asked for."""
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: nn.Identity())
    backbone_module._load_from_source("test_resnet", (0, 1, 2, 3))

    assert constants.HF_HUB_OFFLINE is offline


def test_the_deepest_map_of_a_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model has several maps of one stride the deepest is taken, which has seen the most layers."""

    class Info(list[int]):
        def reduction(self, indices: list[int]) -> list[int]:
            return [self[index] for index in indices]

    info = Info([2, 4, 4, 8, 16, 16, 16, 32, 32])
    monkeypatch.setattr(backbone_module, "_first_sketch", lambda name: SimpleNamespace(feature_info=info))

    assert backbone_module._indices_of_strides.__wrapped__("any") == (2, 3, 6, 8)


@pytest.mark.parametrize("entry", [(), ("state_dict",), ("a", "net")])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder.", "model.backbone.", "_orig_mod.module."])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_wherever_the_weights_are(tmp_path: Path, name: str, prefix: str, entry: tuple[str, ...]) -> None:
    """In any entry and under any prefix, beside what is not the backbone's, under timm's names or the extractor's."""
    whole, extractor = whole_model(name).state_dict(), create_backbone(name).state_dict()
    for weights in (whole, extractor):
        content: Any = {prefix + key: value for key, value in weights.items()}
        content |= {"decoder.conv.weight": torch.ones(2), "total_ops": torch.zeros(1)}
        for key in reversed(entry):
            content = {key: content, "optimizer": {"state": {0: torch.ones(2)}}}
        backbone = create_pretrained_backbone(name, save(content, tmp_path / "weights.pth"))
        expected = (
            weights
            if weights is extractor
            else create_pretrained_backbone(name, save(whole, tmp_path / "plain.pth")).state_dict()
        )
        assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())


def test_two_backbones(tmp_path: Path) -> None:
    """The one that is no average is taken, and where neither is, both are told."""
    first, second = whole_model().state_dict(), create_backbone("test_resnet").state_dict()
    path = save({"model": first, "model_ema": {**first, **second}}, tmp_path / "weights.pth")

    assert same_weights(create_pretrained_backbone("test_resnet", path), first)
    path = save({"a": first, "b": {**first, **second}}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="contains 2 backbones, and it is unclear which one to use: a, b"):
        create_pretrained_backbone("test_resnet", path)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), None])
def test_numbers_that_are_none(tmp_path: Path, name: str, wrong: float | None) -> None:
    """Weights that are NaN, infinite or whole numbers are refused by their names."""
    weights = whole_model(name).state_dict()
    key = next(key for key, value in weights.items() if value.ndim > 1)
    weights[key] = weights[key].to(torch.int8) if wrong is None else torch.full_like(weights[key], wrong)
    with pytest.raises(CheckpointError, match=rf"a network cannot compute with, in 1 tensor: {key} \("):
        create_pretrained_backbone(name, save(weights, tmp_path / "weights.pth"))


def test_sizes_of_another_model(tmp_path: Path) -> None:
    """Which tensor has another size is told, not cut off after the announcement of it."""
    weights = {
        key: value[..., None] if key == "conv1.0.weight" else value for key, value in whole_model().state_dict().items()
    }
    with pytest.raises(CheckpointError, match=r"does not match backbone test_resnet: .*size mismatch for conv1"):
        create_pretrained_backbone("test_resnet", save(weights, tmp_path / "weights.pth"))
