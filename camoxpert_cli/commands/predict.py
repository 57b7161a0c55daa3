from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.options import NetworkSide, Quiet, Views
from camoxpert_cli.config.parse import NO_TTA, parse_tta
from camoxpert_cli.config.schema import Device


def predict(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint of camox or of another program.")
    ],
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Pictures, folders of pictures, or patterns in quotes.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the maps.")],
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Write 255 where the map reaches this part of 255 and 0 elsewhere; grey if not given."
        ),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write DIR/overlays: pictures with the object tinted and outlined.")
    ] = False,
    tta: Views = None,
    img_size: NetworkSide = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the same name in --out.")] = False,
    device: Annotated[Device, typer.Option(metavar="auto|cuda|cpu", help="Where to compute.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Write a grey map for every picture, at its own size.

    The brighter, the more likely an animal. The map of photo.jpg is DIR/photo.png. A folder gives the pictures directly
    in it; in a pattern, ** goes to any depth. A picture that cannot be read is named, and the others are done.

    \b
    Examples:
      camox predict runs/first/best_model.pth photo.jpg --out maps
      camox predict runs/first/best_model.pth photos 'trips/**/*.jpg' --out maps
      camox predict runs/first/best_model.pth photos --out masks --threshold 0.5
      camox predict runs/first/best_model.pth photos --out maps --overlay \\
          --tta flip
    """
    views = NO_TTA if tta is None else parse_tta(tta)
    from camoxpert_cli.inference.predict import Outputs
    from camoxpert_cli.inference.predict import predict as run

    outputs = Outputs(out, threshold, overlay)
    predictions = run(checkpoint, paths, outputs, device=device, img_size=img_size, overwrite=overwrite, tta=views)
    count = "1 map" if len(predictions) == 1 else f"{len(predictions)} maps"
    console.result(f"{count} in {out}" + (f", overlays in {outputs.overlay_folder}" if overlay else ""))
