"""What came out of a run, for whoever started it to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.run_folder import RunFolder


@dataclass(frozen=True)
class Outcome:
    """`results` are what results.json holds, on the main process of a complete run; `stop` says why a run ended early.

    `epochs` are complete, and `images` were trained on in them, over all sessions. `generated` says that the images
    were made by camox itself.
    """

    folder: RunFolder
    config: Config
    epochs: int
    images: int
    generated: bool
    results: Mapping[str, Any] | None = None
    stop: Stop | None = None
