"""Flags that mean the same on several commands, so that each is worded once."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

from camoxpert_cli.config.schema import SMALLEST_SIDE

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
NetworkSide: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--img-size", min=SMALLEST_SIDE, metavar="N", help="Side in pixels the network sees; as trained if not given."
    ),
]
Views: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tta",
        metavar="VIEWS",
        help="Average the maps of several views: flip (mirrored too), scales (0.75, 1 and 1.25) or flip,scales.",
    ),
]
Weights: TypeAlias = Annotated[
    Literal["model", "ema"] | None,
    typer.Option("--weights", metavar="model|ema", help="Which weights; the average where there is one, if not given."),
]
