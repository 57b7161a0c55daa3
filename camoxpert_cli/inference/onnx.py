"""A network as an ONNX file, compared with the network itself in onnxruntime before it takes its name."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from camoxpert_cli import atomic
from camoxpert_cli.checkpoints.format import CheckpointNotWritten
from camoxpert_cli.errors import CheckpointError, UsageError, first_line
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.dense_moe import with_all_experts
from camoxpert_cli.model.normalise import Normalise

INPUT = "images"
OUTPUTS = ("logits", "probability")
# Float32 sums in another order move logits, which are within -15 and 15, by up to 1e-4.
LARGEST_DIFFERENCE = 5e-4
# torch's exporter is made for this version; onnxruntime knows it since 1.14.
OPSET = 18

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_BATCHES = (1, 2)


class ImageNetwork(nn.Module):
    """uint8 RGB images (B, 3, S, S) -> logits and probability, float32 (B, 1, S, S) each."""

    def __init__(self, network: CamoXpert) -> None:
        super().__init__()
        self.normalise = Normalise(network.normalisation)
        self.network = with_all_experts(network)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(self.normalise(images)).logits
        return logits, logits.sigmoid()


def require_onnx() -> None:
    """Raise UsageError where a package is missing that writes or runs ONNX."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"writing ONNX takes packages that are not installed: {', '.join(missing)}",
            f"python -m pip install {' '.join(_PACKAGES)}",
        )


def is_own_onnx(path: Path) -> bool:
    """Whether the metadata in the file has the entry `camox`, as in the descriptions that `write_onnx` is given."""
    return b"\n\x05camox\x12" in path.read_bytes()


def write_onnx(path: Path, network: CamoXpert, img_size: int, description: Mapping[str, str]) -> float:
    """Write `network`, in eval mode on the CPU, for images of one size and batches of any.

    Returns the largest difference between the file's logits and the network's, on generated images. Raises
    CheckpointError where the network cannot be expressed in ONNX or the file computes something else, and
    CheckpointNotWritten where the disk refuses; nothing is at `path` then that was not there before.
    """
    content = _traced(network, img_size, description)
    difference = _difference(content, network, img_size)
    if not difference <= LARGEST_DIFFERENCE:
        raise CheckpointError(
            f"the ONNX file gives logits that differ by {difference:.1e} from the network's, more than the "
            f"{LARGEST_DIFFERENCE:.0e} that rounding explains; it was not kept",
            f"python -m pip install --upgrade {' '.join(_PACKAGES)}",
        )
    try:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise CheckpointNotWritten(
            f"{path} cannot be written: {error.strerror}", "free some space, or choose another folder"
        ) from error
    return difference


def _traced(network: CamoXpert, img_size: int, description: Mapping[str, str]) -> bytes:
    import onnx

    try:
        with _quiet():
            program = torch.export.export(
                ImageNetwork(network).eval(),
                # With one image torch would take the batch for a constant.
                (_images(2, img_size),),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
            translated = torch.onnx.export(
                program, input_names=[INPUT], output_names=list(OUTPUTS), opset_version=OPSET, verbose=False
            )
            assert translated is not None
            model = translated.model_proto
            onnx.helper.set_model_props(model, dict(description))
            onnx.checker.check_model(model, full_check=True)
            return model.SerializeToString()
    except Exception as error:  # what a backbone's operators make of the exporter is not specified
        raise CheckpointError(
            f"{network.backbone_name} at {img_size} pixels cannot be written as ONNX: {first_line(error)}",
            "a name that ends in .safetensors writes the weights alone",
        ) from error


@torch.no_grad()
def _difference(content: bytes, network: CamoXpert, img_size: int) -> float:
    """The largest difference of any logit, over batches of several sizes; nan where one is not a number."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    normalise = Normalise(network.normalisation)
    worst = 0.0
    for batch in _BATCHES:
        images = _images(batch, img_size)
        (logits,) = session.run([OUTPUTS[0]], {INPUT: images.numpy()})
        expected = network(normalise(images)).logits.numpy()
        worst = float(np.maximum(worst, np.abs(logits - expected).max()))  # unlike max, it keeps nan
    return worst


def _images(count: int, img_size: int) -> Tensor:
    """uint8 (B, 3, S, S): patches of random colours, each image with other ones."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 200
    smooth = nn.functional.interpolate(coarse, size=(img_size, img_size), mode="bilinear")
    noise = torch.rand(count, 3, img_size, img_size, generator=generator) * 55
    return (smooth + noise).to(torch.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch's exporter says about its own parts; what goes wrong, it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
