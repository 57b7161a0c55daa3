from __future__ import annotations

from typing import Annotated, Any

import typer

from camoxpert_cli.commands.imports import without_collecting
from camoxpert_cli.commands.options import AsJson, Quiet, with_settings
from camoxpert_cli.config.schema import SETTINGS


@with_settings(SETTINGS)
def train(
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Preset to start from (see camox presets), or a .yaml file.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.NAME=VALUE", help="Set any setting; may be repeated.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **flags: Any,
) -> None:
    """Train the network.

    Flags override the preset, which overrides the defaults; --set overrides flags.

    \b
    Examples:
      camox train --preset quickstart
      camox train --preset kaggle-1xT4 \\
          --dataset-path /kaggle/input/cod10k-dataset/COD10K-v3
      camox train --dataset-path DATA --checkpoint-dir runs/first --epochs 40 \\
          --stage1-epochs 10
      camox train --preset mine.yaml --dataset-path DATA
      camox train --dataset-path DATA --resume-from original.pth --skip-stage1
    """
    from camoxpert_cli.config.resolve import resolve
    from camoxpert_cli.launch.unfinished import code_of, interrupted_with

    resolved = resolve(preset, flags, assignments or [])
    with interrupted_with(code_of(resolved.config)):  # importing torch takes seconds
        with without_collecting():
            from camoxpert_cli.commands.training_outcome import finish
            from camoxpert_cli.launch.start import start

        outcome = start(resolved)
    finish(outcome, as_json=as_json)
