from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.imports import without_collecting
from camoxpert_cli.commands.options import Continue, NetworkPrecision, NetworkSide, Quiet, Views, continues
from camoxpert_cli.config.parse import NO_TTA, parse_tta
from camoxpert_cli.config.schema import MOST_COUNTED, SMALLEST_SIDE, Device


def predict(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint from camox or another program.")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Images, folders of images, or quoted patterns.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder for the predictions.")],
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Write binary masks: 255 where the prediction is at least X, on a scale of 0 to 1, else 0.",
        ),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write DIR/overlays: images with the object tinted and outlined.")
    ] = False,
    tta: Views = None,
    tiles: Annotated[
        int | None,
        typer.Option(
            min=SMALLEST_SIDE,
            max=MOST_COUNTED,
            metavar="N",
            help="Predict images with a side of more than N pixels in overlapping tiles of N x N pixels, for objects "
            "that are small in a large image; N should be at least twice their size.",
        ),
    ] = None,
    img_size: NetworkSide = None,
    precision: NetworkPrecision = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace earlier predictions and overlays of the same name in --out.")
    ] = False,
    continue_: Continue = None,
    device: Annotated[Device, typer.Option(metavar="auto|cuda|cpu", help="Device to run on.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Write a grayscale prediction for every image.

    A prediction has the size of its image; the brighter a pixel, the more likely it belongs to an animal. The
    prediction for photo.jpg is DIR/photo.png. For a folder, the images directly in it are used; in a pattern, **
    matches folders at any depth. An image that cannot be read is reported, and the others are processed.

    \b
    Examples:
      camox predict runs/first/best_model.pth photo.jpg --out predictions
      camox predict runs/first/best_model.pth photos \\
          'trips/**/*.jpg' --out predictions
      camox predict runs/first/best_model.pth photos --out masks --threshold 0.5
      camox predict runs/first/best_model.pth photos --out predictions \\
          --overlay --tta flip
      camox predict runs/first/best_model.pth aerial.tif --out predictions \\
          --tiles 1024
    """
    views = NO_TTA if tta is None else parse_tta(tta)
    with without_collecting():
        from camoxpert_cli.inference.outputs import Outputs
        from camoxpert_cli.inference.predict import predict as run

    outputs = Outputs(out, threshold, overlay)
    predictions = run(
        checkpoint,
        paths,
        outputs,
        device=device,
        img_size=img_size,
        overwrite=overwrite,
        tta=views,
        tiles=tiles,
        keep=continues(continue_),
        precision=precision,
    )
    console.result(
        f"{console.counted(len(predictions), 'prediction')} in {out}"
        + (f", overlays in {outputs.overlay_folder}" if overlay else "")
    )
