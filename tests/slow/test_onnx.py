"""Networks as ONNX files: tracing one takes torch half a minute and more."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from camoxpert_cli.checkpoints.load import load_model
from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.inference import onnx
from camoxpert_cli.inference.export import export
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.dense_moe import with_all_experts
from camoxpert_cli.model.normalize import Normalize
from tests.helpers.checkpoints import content_of, exported_metadata, save, write_content
from tests.helpers.networks import small_network, spread_routing
from tests.helpers.places import COMPAT

missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (see `camox[export]`)")

needs_compat = pytest.mark.skipif(
    not COMPAT.is_dir(), reason="the checkpoints of the original program are not beside the repository"
)
# What float32 rounding may move a logit by; the recorded logits of the original program have the same bound.
BOUND = 5e-4


def photos(count: int, size: int = 64, seed: int = 1) -> Tensor:
    """uint8 (B, 3, S, S), each image of its own brightness and contrast."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 3, size, size, generator=generator)
    span = torch.rand(count, 3, 1, 1, generator=generator)
    return ((noise * span + torch.rand(count, 3, 1, 1, generator=generator) * (1 - span)) * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint trained at 64 pixels, whose average sends `photos(4)` to different experts."""
    network = small_network("test_resnet", 7).eval()
    ema = small_network("test_resnet", 7, seed=1).eval()
    spread_routing(ema, Normalize(ema.normalization)(photos(4)))
    content = {
        "backbone": "test_resnet",
        "num_experts": 7,
        "network": network.state_dict(),
        "ema": ema.state_dict(),
        "epoch": 3,
        "config": {"data": {"img_size": 64}},
    }
    path = tmp_path_factory.mktemp("checkpoint") / "best_model.pth"
    write_content(path, content)
    return path


@pytest.fixture(scope="module")
def small() -> CamoXpert:
    return small_network("test_resnet", 2).eval()


@pytest.fixture
def small_checkpoint(small: CamoXpert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experts, which are traced faster than seven, and no word about its size."""
    return save(content_of(small), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def onnx_path(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "out.onnx"
    export(checkpoint, path)
    return path


def run(path: Path, images: Tensor, output: str = "logits") -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([output], {"images": images.numpy()})[0], dtype=np.float32)


@torch.no_grad()
def logits_of(checkpoint: Path, images: Tensor, ema: bool = True) -> NDArray[np.float32]:
    network = load_model(checkpoint, ema=ema)
    return np.asarray(network(Normalize(network.normalization)(images)).logits.numpy(), dtype=np.float32)


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_onnx_gives_the_networks_logits(checkpoint: Path, onnx_path: Path, batch: int) -> None:
    """In batches of any size, also where the images of one choose different experts."""
    images = photos(4)[:batch]
    logits = run(onnx_path, images)
    network = load_model(checkpoint, ema=True)
    with torch.no_grad():
        routing = network(Normalize(network.normalization)(photos(4))).routing
    other_weights = logits_of(checkpoint, images, ema=False)

    assert logits.shape == (batch, 1, 64, 64)
    assert np.abs(logits - logits_of(checkpoint, images)).max() < BOUND
    assert np.abs(logits - other_weights).max() > 100 * BOUND
    assert all(len({tuple(sorted(row)) for row in layer.chosen.tolist()}) > 1 for layer in routing)


def test_onnx_probability(onnx_path: Path) -> None:
    """The second output is the sigmoid of the first."""
    logits, probability = run(onnx_path, photos(2)), run(onnx_path, photos(2), "probability")

    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_onnx_describes_itself(onnx_path: Path) -> None:
    """One file with a uint8 input of a free batch and a fixed size, and all in its metadata that using it takes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    (images,), outputs = session.get_inputs(), session.get_outputs()

    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [3, 64, 64])
    assert isinstance(images.shape[0], str)
    assert [(each.name, each.type, each.shape[1:]) for each in outputs] == [
        ("logits", "tensor(float)", [1, 64, 64]),
        ("probability", "tensor(float)", [1, 64, 64]),
    ]
    assert all(each.shape[0] == images.shape[0] for each in outputs)
    metadata = session.get_modelmeta().custom_metadata_map
    expected = exported_metadata(num_experts=7)
    assert {name: metadata[name] for name in expected} == expected
    assert [path.name for path in onnx_path.parent.iterdir()] == ["out.onnx"]


def test_onnx_at_another_size(small_checkpoint: Path, tmp_path: Path) -> None:
    """A size that no stride divides, and the weights without their average."""
    export(small_checkpoint, tmp_path / "out.onnx", img_size=75, weights="model")
    images = photos(2, 75)

    assert np.abs(run(tmp_path / "out.onnx", images) - logits_of(small_checkpoint, images, ema=False)).max() < BOUND


def test_onnx_that_differs_is_not_kept(small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose logits are not the network's is refused, and what was there before stays."""

    def disturbed(network: CamoXpert) -> CamoXpert:
        other = with_all_experts(network)
        with torch.no_grad():
            for parameter in other.final_conv.parameters():
                parameter.add_(0.01)
        return other

    monkeypatch.setattr(onnx, "with_all_experts", disturbed)
    before = b"precious, with the entry\n\x05camox\x12 by which it is known"
    (tmp_path / "out.onnx").write_bytes(before)
    with pytest.raises(CheckpointError, match="differ from the network's by"):
        export(small_checkpoint, tmp_path / "out.onnx", img_size=64, weights="model", overwrite=True)

    assert (tmp_path / "out.onnx").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


def test_network_that_onnx_cannot_express(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the exporter cannot translate ends with one sentence and exit code 4, and no file."""
    monkeypatch.setattr(onnx, "with_all_experts", lambda network: network)
    with pytest.raises(CheckpointError, match="test_resnet at 64 pixels cannot be exported to ONNX: ") as caught:
        export(small_checkpoint, tmp_path / "out.onnx", img_size=64)

    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


@needs_compat
@pytest.mark.parametrize(
    ("name", "weights", "recorded"),
    [("camoxpert_xxs_7experts", "model", "logits"), ("camoxpert_xxs_7experts_module_prefix", "ema", "ema_logits")],
)
def test_original_checkpoints(name: str, weights: Any, recorded: str, tmp_path: Path) -> None:
    """Exported, a real file of the original program gives the logits that the program gave.

    Its recorded images are normalized already, and enter behind the file's own normalization.
    """
    import onnx

    expected = torch.load(COMPAT / f"{name}.expected.pt", weights_only=True)
    export(COMPAT / f"{name}.pth", tmp_path / "out.onnx", img_size=128, weights=weights)
    model = onnx.load(tmp_path / "out.onnx")
    (normalized,) = [node.output[0] for node in model.graph.node if node.op_type == "Div"][:1]
    part = onnx.utils.Extractor(model).extract_model([normalized], ["logits"])
    part.graph.input[0].name = "images"
    for node in part.graph.node:
        for at, value in enumerate(node.input):
            if value == normalized:
                node.input[at] = "images"
    onnx.save(part, tmp_path / "part.onnx")

    for batch in (1, 4):
        logits = run(tmp_path / "part.onnx", expected["image"][:batch])
        assert np.abs(logits - expected[recorded][:batch].numpy()).max() < BOUND
