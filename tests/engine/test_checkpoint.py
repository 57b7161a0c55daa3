from __future__ import annotations

import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import camoxpert_cli
from camoxpert_cli.engine.checkpoint import (
    average_in,
    load_model,
    load_weights,
    read_checkpoint,
    weights_of,
    write_checkpoint,
)
from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.model.networks import pictures, small_network

# Checkpoints of the original program with the logits they must give lie beside the repository.
COMPAT = Path(__file__).parents[3] / "shared" / "compat"
ORIGINALS = ["camoxpert_xxs_7experts", "camoxpert_xxs_7experts_module_prefix"]


@pytest.fixture(scope="module")
def network() -> CamoXpert:
    return small_network("test_resnet", 2).eval()


@pytest.fixture
def content(network: CamoXpert) -> dict[str, Any]:
    """A checkpoint of camox whose average is the network with every number doubled."""
    state = network.state_dict()
    average = {name: 2 * value for name, value in state.items()}
    return {"backbone": "test_resnet", "num_experts": 2, "network": state, "ema": average, "epoch": 3}


def original(content: dict[str, Any], network: CamoXpert, prefix: str = "") -> dict[str, Any]:
    """The same as the original program would have saved it."""
    return {
        "epoch": 2,
        "model_state_dict": OrderedDict((prefix + name, value) for name, value in content["network"].items()),
        "ema_state_dict": {name: content["ema"][name] for name, _ in network.named_parameters()},
        "best_iou": np.float64(0.25),
        "args": {"backbone": "test_resnet", "num_experts": 2, "lr": 0.01},
    }


def save(content: Any, folder: Path) -> Path:
    """By torch alone: without format and version."""
    torch.save(content, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def refusal(path: Path) -> CheckpointError:
    """Why a file is not loaded; `load_model` and `read_checkpoint` give the same reason."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def worst(output: Tensor, expected: Tensor) -> float:
    return (output - expected).abs().max().item()


@pytest.mark.skipif(not COMPAT.is_dir(), reason="the checkpoints of the original program are not beside the repository")
@pytest.mark.parametrize("name", ORIGINALS)
def test_original_checkpoints(name: str) -> None:
    """Checkpoints of the original program, under DataParallel too, give the logits that it gave."""
    expected = torch.load(COMPAT / f"{name}.expected.pt", weights_only=True)
    with torch.no_grad():
        output = camoxpert_cli.load_model(COMPAT / f"{name}.pth")(expected["image"])
        averaged = camoxpert_cli.load_model(str(COMPAT / f"{name}.pth"), device="cpu", ema=True)(expected["image"])

    # Float32 rounding alone moves these logits by 1e-4 (measured 1.5e-4), the other set of weights by 6 and more.
    assert worst(output.logits, expected["logits"]) < 5e-4
    assert worst(averaged.logits, expected["ema_logits"]) < 5e-4
    assert worst(output.logits, expected["ema_logits"]) > 1
    for own, other in zip(output.deep_logits, expected["deep_logits"], strict=True):
        assert worst(own, other) < 5e-4
    for routing, chosen in zip(output.routing, expected["top_k_indices"], strict=True):
        assert torch.equal(routing.chosen, chosen)


def test_round_trip(tmp_path: Path, content: dict[str, Any]) -> None:
    """What was written is read: tensors, numbers, and the random states that resuming needs."""
    extra = {"training": {"rng": torch.get_rng_state(), "list": [1, 2.5, None, True, "text"]}, "scores": {"mae": 0.1}}
    path = tmp_path / "last.pth"
    write_checkpoint(path, {**content, **extra})
    read = read_checkpoint(path)

    assert (read["format"], read["version"]) == ("camox", 1)
    assert read["scores"] == {"mae": 0.1}
    assert read["training"]["list"] == [1, 2.5, None, True, "text"]
    assert torch.equal(read["training"]["rng"], torch.get_rng_state())
    for key in ("network", "ema"):
        assert read[key].keys() == content[key].keys()
        assert all(torch.equal(read[key][name], value) for name, value in content[key].items())
    assert list(tmp_path.iterdir()) == [path]


def test_load_model(tmp_path: Path, content: dict[str, Any], network: CamoXpert) -> None:
    """The network comes in eval mode and gives the logits it gave before; with `ema` it has the average's weights."""
    path = tmp_path / "best_model.pth"
    write_checkpoint(path, content)
    images = pictures(2)
    loaded, averaged = load_model(path), load_model(str(path), ema=True)

    assert not any(module.training for module in loaded.modules())
    with torch.no_grad():
        assert torch.equal(loaded(images).logits, network(images).logits)
    assert all(torch.equal(value, content["ema"][name]) for name, value in averaged.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_original_format(tmp_path: Path, content: dict[str, Any], network: CamoXpert, prefix: str) -> None:
    """The original program's dict is read with its NumPy score and prefixes; its average has no buffers of its own."""
    path = save(original(content, network, prefix), tmp_path)
    loaded, averaged = load_model(path).state_dict(), load_model(path, ema=True).state_dict()
    parameters = {name for name, _ in network.named_parameters()}

    assert read_checkpoint(path)["best_iou"] == 0.25
    for name, value in content["network"].items():
        assert torch.equal(loaded[name], value)
        assert torch.equal(averaged[name], content["ema"][name] if name in parameters else value)


def test_numpy_1_format(tmp_path: Path, content: dict[str, Any], network: CamoXpert) -> None:
    """A score stored under NumPy 1, which had its scalars in another module, is read too."""
    new = save(original(content, network), tmp_path)
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"cnumpy._core.multiarray\nscalar" in data
                data = data.replace(b"cnumpy._core.multiarray\nscalar", b"cnumpy.core.multiarray\nscalar")
            target.writestr(item, data)

    assert read_checkpoint(old)["best_iou"] == 0.25


def test_legacy_format(tmp_path: Path, content: dict[str, Any], network: CamoXpert) -> None:
    """Files in torch's format from before version 1.6 are read too."""
    path = tmp_path / "legacy.pth"
    torch.save(original(content, network), path, _use_new_zipfile_serialization=False)

    assert read_checkpoint(path)["epoch"] == 2


def test_no_average(tmp_path: Path, content: dict[str, Any]) -> None:
    """Asking for an average that is not there is an error, never the bare weights."""
    path = tmp_path / "last.pth"
    write_checkpoint(path, {**content, "ema": None})

    assert average_in(read_checkpoint(path)) is None
    with pytest.raises(CheckpointError, match="no moving average"):
        load_model(path, ema=True)


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare pickle"])
def test_hostile_file(tmp_path: Path, content: dict[str, Any], kind: str) -> None:
    """A file that would run code is refused, and nothing has run."""
    marker = tmp_path / "marker"
    path = tmp_path / "hostile.pth"
    hostile = {**content, "epoch": Hostile(marker)}
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps({"network": {}, "epoch": Hostile(marker)}, protocol=2))
    else:
        torch.save(hostile, path, _use_new_zipfile_serialization=kind == "zip")
    error = refusal(path)

    assert "it was not loaded" in error.message
    assert not marker.exists()
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert marker.exists()  # the file is as hostile as it is meant to be


@pytest.mark.parametrize("value", [np.float32(0.5), np.zeros(3), np.array([None])[0:1], Path("x")])
def test_more_than_plain_types(tmp_path: Path, content: dict[str, Any], value: Any) -> None:
    """Beside one kind of NumPy scalar, only plain types are read."""
    assert "more than plain types" in refusal(save({**content, "scores": value}, tmp_path)).message


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there and a folder are refused by their path."""
    assert "there is no checkpoint" in refusal(tmp_path / "last.pth").message
    assert "there is no checkpoint" in refusal(tmp_path).message


@pytest.mark.parametrize("part", [0, 1e-4, 0.1, 0.5, 0.99, 0.9999])
def test_truncated_file(tmp_path: Path, content: dict[str, Any], part: float) -> None:
    """A file that was cut off anywhere, to nothing even, is refused."""
    path = tmp_path / "last.pth"
    write_checkpoint(path, content)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])

    refusal(path)


@pytest.mark.parametrize(
    "garbage", [b"<html>404</html>", b"\x00" * 1000, b"PK\x03\x04" + b"x" * 100, b"\x80\x02}q\x00."]
)
def test_garbage(tmp_path: Path, garbage: bytes) -> None:
    """A file of anything else is refused."""
    path = tmp_path / "last.pth"
    path.write_bytes(garbage)

    refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        3,
        {"conv1.weight": torch.ones(3)},
        {"network": "test_resnet", "backbone": "test_resnet", "num_experts": 2},
        {"network": {"weight": 3}},
        {"network": {1: torch.ones(3)}},
        {"model_state_dict": None},
        {"network": {"weight": torch.ones(3)}, "ema": {"weight": "w"}},
        torch.ones(3),
    ],
    ids=repr,
)
def test_something_else(tmp_path: Path, content: Any) -> None:
    """A bare state dict and other plain contents are refused: they do not say what they are."""
    assert "holds no CamoXpert checkpoint" in refusal(save(content, tmp_path)).message


@pytest.mark.parametrize("version", [2, 99, "2.0", None])
def test_other_version(tmp_path: Path, content: dict[str, Any], version: Any) -> None:
    """A file of a later camox is refused with its version and what to do."""
    error = refusal(save({**content, "format": "camox", "version": version}, tmp_path))

    assert f"is of version {version}, and this camox reads up to 1" in error.message
    assert error.hint == "install a newer camox"


@pytest.mark.parametrize("args", [None, {}, {"backbone": "test_resnet"}, {"num_experts": 2}, "--backbone x"])
def test_nameless_network(tmp_path: Path, content: dict[str, Any], network: CamoXpert, args: Any) -> None:
    """Without backbone and number of experts there is no network to fill."""
    path = save({**original(content, network), "args": args}, tmp_path)

    assert "does not say which backbone and how many experts" in refusal(path).message


def test_unknown_backbone(tmp_path: Path, content: dict[str, Any]) -> None:
    """A backbone that the timm here does not know is named."""
    error = refusal(save({**content, "backbone": "resnet_of_tomorrow"}, tmp_path))

    assert "timm has no backbone named resnet_of_tomorrow" in error.message


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"num_experts": 3}, "test_resnet with 3 experts: .* of another size, the first moe_layers.0.gate.1.weight"),
        ({"backbone": "test_efficientnet"}, "test_efficientnet with 2 experts: .* of another size, the first"),
        ({"network": {}}, "test_resnet with 2 experts: [0-9]+ tensors are missing, the first backbone.conv1.0.weight"),
    ],
)
def test_another_network(tmp_path: Path, content: dict[str, Any], change: dict[str, Any], what: str) -> None:
    """Where weights and description do not fit, both are named with the first tensor, and what to check."""
    path = save({**content, **change}, tmp_path)
    with pytest.raises(CheckpointError, match=what) as caught:
        load_model(path)

    assert "--backbone" in caught.value.hint
    assert "--num-experts" in caught.value.hint


@pytest.mark.parametrize(("change", "what"), [("missing", "missing"), ("unknown", "unknown"), ("size", "another size")])
def test_nothing_is_loaded_in_part(content: dict[str, Any], network: CamoXpert, change: str, what: str) -> None:
    """One tensor that does not fit is named, and the network keeps every weight."""
    weights = {name: value + 1 for name, value in content["network"].items()}
    name = "final_conv.3.bias"
    if change == "missing":
        del weights[name]
    elif change == "unknown":
        name = "final_conv.4.bias"
        weights[name] = torch.ones(1)
    else:
        weights[name] = torch.ones(2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"1 tensors are (of )?{what}, the first {name}"):
        load_weights(network, weights, Path("last.pth"))

    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_mixed_prefixes(content: dict[str, Any]) -> None:
    """Weights of which only some carry a wrapper's prefix are refused."""
    first, *others = content["network"]
    mixed = {f"module.{first}": content["network"][first], **{key: content["network"][key] for key in others}}
    with pytest.raises(CheckpointError, match="mixed"):
        weights_of({**content, "network": mixed}, ema=False)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Writing more than `limit` bytes into a file fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 10_000, 1_000_000])
def test_full_disk(tmp_path: Path, content: dict[str, Any], limit: int) -> None:
    """Where the disk is full, the file before it is kept, no other is left, and the message says so."""
    path = tmp_path / "last.pth"
    write_checkpoint(path, content)
    before = path.read_bytes()
    with file_size_limit(limit), pytest.raises(CheckpointError) as caught:
        write_checkpoint(path, {**content, "epoch": 4})

    assert f"{path} cannot be written" in caught.value.message
    assert "free some space" in caught.value.hint
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_disk_error(tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where flushing or renaming fails, the file before it is kept and no other is left."""
    path = tmp_path / "last.pth"
    write_checkpoint(path, content)
    before = path.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        write_checkpoint(path, {**content, "epoch": 4})

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write(tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a write goes through as it is; the file before it is kept and no other is left."""
    path = tmp_path / "last.pth"
    write_checkpoint(path, content)
    before = path.read_bytes()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, content)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
