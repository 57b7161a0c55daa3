from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.checkpoints.convert import convert_checkpoint
from camoxpert_cli.checkpoints.format import write_safetensors
from camoxpert_cli.errors import CheckpointError, UsageError
from camoxpert_cli.inference import onnx
from camoxpert_cli.inference.export import export
from camoxpert_cli.inference.predict import ready_network
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.weights_file import read_weights_file
from tests.helpers.checkpoints import content_of, exported_metadata, original, save, write_content
from tests.helpers.compare import differences


@pytest.fixture(scope="module")
def checkpoint(network: CamoXpert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the network and, as its average, of the doubled one; trained at 64 pixels."""
    path = tmp_path_factory.mktemp("checkpoint") / "best_model.pth"
    write_content(path, {**content_of(network), "config": {"data": {"img_size": 64}}})
    return path


@pytest.mark.parametrize("weights", [None, "model"])
def test_safetensors(checkpoint: Path, network: CamoXpert, tmp_path: Path, weights: Any) -> None:
    """The file holds the network alone, says all about it, and loads; the average goes first where not said.

    One that was there before is replaced where that is meant.
    """
    path = tmp_path / "out.safetensors"
    write_safetensors(path, {"old": torch.zeros(2)}, {"camox": "1.0"})
    done = export(checkpoint, path, weights=weights, overwrite=True)
    content, expected = read_weights_file(path), content_of(network)["network" if weights == "model" else "ema"]

    assert (done.difference, done.bytes) == (None, path.stat().st_size)
    metadata = exported_metadata(num_experts=2, weights=weights or "ema")
    assert {name: content["metadata"].get(name) for name in metadata} == metadata
    assert differences(content["state_dict"], dict(expected)) == []
    loaded, size = ready_network(path, "cpu", None)
    assert size == 64
    assert differences(dict(loaded.state_dict()), dict(expected)) == []


def test_exported_again(checkpoint: Path, tmp_path: Path) -> None:
    """An exported file is a checkpoint: it knows its size and which weights it has, and goes back to a .pth file."""
    export(checkpoint, tmp_path / "once.safetensors", img_size=96)
    export(tmp_path / "once.safetensors", tmp_path / "twice.safetensors")
    convert_checkpoint(tmp_path / "twice.safetensors", tmp_path / "back.pth", keep="weights")
    once, twice = (read_weights_file(tmp_path / f"{name}.safetensors") for name in ("once", "twice"))
    with pytest.raises(CheckpointError, match="contains no EMA weights"):
        export(tmp_path / "once.safetensors", tmp_path / "average.safetensors", weights="ema")

    assert twice["metadata"] == {**once["metadata"], "source": "once.safetensors"}
    assert (twice["metadata"]["img_size"], twice["metadata"]["weights"]) == ("96", "ema")
    assert differences(twice["state_dict"], once["state_dict"]) == []
    assert differences(torch.load(tmp_path / "back.pth", weights_only=True), once["state_dict"]) == []


def test_of_the_original_program(network: CamoXpert, tmp_path: Path) -> None:
    """Its checkpoints are taken, with the size in their options."""
    content = original(content_of(network), network, "module.")
    content["args"]["img_size"] = 128
    done = export(save(content, tmp_path), tmp_path / "out.safetensors")
    # The original averages parameters only; buffers are the network's.
    expected = {**network.state_dict(), **{name: 2 * value.detach() for name, value in network.named_parameters()}}

    assert (done.description["img_size"], done.description["weights"]) == ("128", "ema")
    assert differences(read_weights_file(tmp_path / "out.safetensors")["state_dict"], expected) == []


@pytest.mark.parametrize("absent", [["onnx"], ["onnx", "onnxscript"]])
def test_missing_packages(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: list[str]) -> None:
    """Without what writes ONNX one sentence says what to install; .safetensors needs none of it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
    with pytest.raises(UsageError, match=f"(?m)needs packages that are not installed: {', '.join(absent)}$") as caught:
        export(checkpoint, tmp_path / "out.onnx")

    assert caught.value.hint == "python -m pip install onnx onnxruntime onnxscript"
    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails from now on
    assert export(checkpoint, tmp_path / "out.safetensors").difference is None


@pytest.mark.parametrize(
    ("target", "overwrite", "message"),
    [
        ("taken.onnx", False, "taken.onnx already exists"),
        ("out.pth", False, "has no known export format"),
        ("out", False, "has no known export format"),
        ("nowhere/out.onnx", False, "out.onnx cannot be written: folder "),
        ("folder.onnx", True, "folder.onnx is a folder"),
        ("link.safetensors", True, "is the checkpoint itself"),
    ],
)
def test_targets_that_are_refused(checkpoint: Path, tmp_path: Path, target: str, overwrite: bool, message: str) -> None:
    """What must not be written ends with one sentence, exit code 2, and no file changed."""
    (tmp_path / "taken.onnx").write_text("precious")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "link.safetensors").symlink_to(checkpoint)
    before, content = sorted(tmp_path.iterdir()), checkpoint.read_bytes()
    with pytest.raises(UsageError, match=message) as caught:
        export(checkpoint, tmp_path / target, overwrite=overwrite)

    assert caught.value.exit_code == 2
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "taken.onnx").read_text() == "precious"
    assert checkpoint.read_bytes() == content


def test_command(checkpoint: Path, tmp_path: Path) -> None:
    """Two lines on stdout say which network it is, which of its weights, at which size, and where they are."""
    path = tmp_path / "out.safetensors"
    ema, model = (
        CliRunner().invoke(app, ["export", str(checkpoint), str(path), "--img-size", "96", *more])
        for more in ([], ["--weights", "model", "--overwrite"])
    )

    assert (ema.exit_code, model.exit_code) == (0, 0), ema.output + model.output
    first, last = ema.stdout.splitlines()
    assert first == f"{checkpoint}: test_resnet with 2 experts, EMA weights, 96 pixels"
    assert last == f"Written: {path}, {path.stat().st_size / 2**20:.1f} MiB"
    assert "raw weights" in model.stdout


@pytest.mark.parametrize("difference", [1e-4, 1e-3, math.nan])
def test_onnx_that_differs_is_not_kept(
    network: CamoXpert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    """A file whose logits are not the network's, up to rounding, never takes its name.

    Tracing a network takes half a minute: tests/slow does it.
    """
    monkeypatch.setattr(onnx, "_traced", lambda *_: b"new")
    monkeypatch.setattr(onnx, "_difference", lambda *_: difference)
    path = tmp_path / "out.onnx"
    path.write_text("precious")
    if difference == 1e-4:
        assert onnx.write_onnx(path, network, 64, {}) == difference
        assert path.read_text() == "new"
    else:
        with pytest.raises(CheckpointError, match="differ from the network's by"):
            onnx.write_onnx(path, network, 64, {})
        assert path.read_text() == "precious"
    assert [each.name for each in tmp_path.iterdir()] == ["out.onnx"]
