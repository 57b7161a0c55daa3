"""Exports a network to ONNX and compares the file with the network in onnxruntime before it is saved."""

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
from camoxpert_cli.model.normalize import Normalize

INPUT = "images"
OUTPUTS = ("logits", "probability")
# Float32 sums in a different order change logits, which are between -15 and 15, by up to 1e-4.
LARGEST_DIFFERENCE = 5e-4
# torch's exporter targets this version; onnxruntime supports it since 1.14.
OPSET = 18

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_BATCHES = (1, 2)


class ImageNetwork(nn.Module):
    """A network from uint8 RGB images (B, 3, S, S) to logits and probability, float32 (B, 1, S, S) each."""

    def __init__(self, network: CamoXpert) -> None:
        super().__init__()
        self.normalize = Normalize(network.normalization)
        self.network = with_all_experts(network)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(self.normalize(images)).logits
        return logits, logits.sigmoid()


def require_onnx() -> None:
    """Raise UsageError if a package needed to write or run ONNX is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"ONNX export needs packages that are not installed: {', '.join(missing)}",
            f"python -m pip install {' '.join(_PACKAGES)}",
        )


def is_own_onnx(path: Path) -> bool:
    """Return whether the file's metadata has the entry `camox`, as in the descriptions passed to `write_onnx`."""
    return b"\n\x05camox\x12" in path.read_bytes()


def write_onnx(path: Path, network: CamoXpert, img_size: int, description: Mapping[str, str]) -> float:
    """Write `network`, in eval mode on the CPU, for a fixed image size and any batch size.

    Returns the largest difference between the file's logits and the network's on generated images. Raises
    CheckpointError if the network cannot be converted to ONNX or the outputs of the file differ, and
    CheckpointNotWritten if writing fails; `path` is then unchanged.
    """
    content = _traced(network, img_size, description)
    difference = _difference(content, network, img_size)
    if not difference <= LARGEST_DIFFERENCE:
        raise CheckpointError(
            f"the logits of the ONNX file differ from the network's by {difference:.1e}, more than the "
            f"{LARGEST_DIFFERENCE:.0e} explained by rounding; the file was not saved",
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
                # With a single image, torch would treat the batch size as a constant.
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
    except Exception as error:  # which errors a backbone's operators cause in the exporter is unspecified
        raise CheckpointError(
            f"{network.backbone_name} at {img_size} pixels cannot be exported to ONNX: {first_line(error)}",
            "choose a name that ends in .safetensors to write only the weights",
        ) from error


@torch.no_grad()
def _difference(content: bytes, network: CamoXpert, img_size: int) -> float:
    """The largest difference of any logit over several batch sizes; NaN if any logit is NaN."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    normalize = Normalize(network.normalization)
    worst = 0.0
    for batch in _BATCHES:
        images = _images(batch, img_size)
        (logits,) = session.run([OUTPUTS[0]], {INPUT: images.numpy()})
        expected = network(normalize(images)).logits.numpy()
        worst = float(np.maximum(worst, np.abs(logits - expected).max()))  # unlike max, it propagates NaN
    return worst


def _images(count: int, img_size: int) -> Tensor:
    """uint8 (B, 3, S, S): patches of random colors, different in each image."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 200
    smooth = nn.functional.interpolate(coarse, size=(img_size, img_size), mode="bilinear")
    noise = torch.rand(count, 3, img_size, img_size, generator=generator) * 55
    return (smooth + noise).to(torch.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log messages and warnings of torch's exporter; errors are raised anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
