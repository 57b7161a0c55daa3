from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.quiet import Quiet


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of camox or of the original program.")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Pictures and folders of pictures.")],
    out: Annotated[Path, typer.Option(help="Folder for the maps.")],
    img_size: Annotated[
        int | None, typer.Option(min=64, help="Side in pixels the network sees; as trained where not given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the same name in --out.")] = False,
    device: Annotated[Literal["auto", "cuda", "cpu"], typer.Option(help="Where to compute.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Write a grey map for every picture, at its own size: the brighter, the more likely an animal.

    \b
    Examples:
      camox predict runs/first/best_model.pth photo.jpg --out maps
      camox predict runs/first/best_model.pth DATA/TestDataset/CAMO/Imgs --out maps
    """
    from camoxpert_cli.engine.predict import predict as run

    count = run(checkpoint, paths, out, device=device, img_size=img_size, overwrite=overwrite)
    console.result(f"{count} maps in {out}")
