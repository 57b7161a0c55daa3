"""What came out of a run, for whoever started it to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from camoxpert_cli.config.resolve import from_mapping, to_mapping
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

    def to_mapping(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            **{name: getattr(self, name) for name in ("epochs", "images", "generated", "results")},
            "folder": str(self.folder.path),
            "config": to_mapping(self.config),
            "stop": None if self.stop is None else asdict(self.stop),
        }

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> Outcome:
        """What `to_mapping` wrote."""
        stop = content["stop"]
        made = {
            "folder": RunFolder(Path(content["folder"])),
            "config": from_mapping(content["config"], "the outcome"),
            "stop": None if stop is None else Stop(**stop),
        }
        return cls(**{**content, **made})
