"""`--quiet`, the same on every command that has something to say while it works."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from camoxpert_cli import console

# The callback does all; a command that takes this need not look at it.
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", help="Print results, warnings and errors only.", callback=console.be_quiet)
]
