from __future__ import annotations

from typing import Annotated, Any

import typer

from camoxpert_cli.commands.settings_flags import with_settings
from camoxpert_cli.config.load import resolve


@with_settings(["model", "data", "train", "run"])
def train(
    preset: Annotated[str | None, typer.Option(help="Recipe to start from: its name, or a .yaml file.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.NAME=VALUE", help="Set any setting; may be repeated.")
    ] = None,
    **flags: Any,
) -> None:
    """Train the network.

    Settings come from the preset, then from flags, then from --set; what none of them says keeps its default.

    camox train --preset quickstart

    camox train --preset kaggle-2xT4 --dataset-path /kaggle/input/cod10k-dataset/COD10K-v3

    camox train --dataset-path DATA --epochs 40 --stage1-epochs 10 --checkpoint-dir runs/first
    """
    resolved = resolve(preset, flags, assignments or [])

    from camoxpert_cli.engine.train import train as run

    run(resolved)
