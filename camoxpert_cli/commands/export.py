from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.options import NetworkSide, Weights, file_path

_MIB = 2**20


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint from camox or another program.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", parser=file_path, help="File to write, .onnx or .safetensors.")
    ],
    img_size: NetworkSide = None,
    weights: Weights = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if camox wrote it.")] = False,
) -> None:
    """Export the network to ONNX or safetensors.

    An .onnx file runs without torch or camox.

    \b
    Input and outputs of an .onnx file:
      images       uint8 (B, 3, S, S): RGB images, resized to S x S;
                   normalization is part of the file
      logits       float32 (B, 1, S, S), -15 to 15
      probability  float32 (B, 1, S, S), 0 to 1: the sigmoid of logits
    B is dynamic. S, the backbone, mean and std, the threshold and more are
    in the metadata of .onnx and .safetensors files.

    An .onnx file is run in onnxruntime and compared with the network before it is saved as OUT.

    \b
    Examples:
      camox export runs/first/best_model.pth camoxpert.onnx
      camox export runs/first/best_model.pth camoxpert.onnx --img-size 352
      camox export runs/first/best_model.pth camoxpert.safetensors
    """
    from camoxpert_cli.inference.export import export as run

    done = run(checkpoint, target, img_size=img_size, weights=weights, overwrite=overwrite)
    said = done.description
    which = "EMA weights" if said["weights"] == "ema" else "raw weights"
    console.result(
        f"{checkpoint}: {said['backbone']} with {console.counted(int(said['num_experts']), 'expert')}, {which}, "
        f"{said['img_size']} pixels"
    )
    if done.difference is not None:
        console.result(f"Compared with the network in onnxruntime: logits differ by at most {done.difference:.1e}")
    console.result(f"Written: {target}, {done.bytes / _MIB:.1f} MiB")
