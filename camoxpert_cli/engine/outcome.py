"""The outcome of a run, to be shown by the command that started it."""

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
    """Outcome of a run: `results` is the content of results.json of a complete run, `stop` is why a run stopped early.

    `unsaved` is why the last save failed, and the hint. Only the main process has these three. `epochs` counts complete
    epochs, `images` the training images seen in them, and `seconds` their time, over all sessions. `generated` is
    True if camox generated the images.
    """

    folder: RunFolder
    config: Config
    epochs: int
    images: int
    seconds: float
    generated: bool
    results: Mapping[str, Any] | None = None
    stop: Stop | None = None
    unsaved: tuple[str, str] | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        return {
            **{
                name: getattr(self, name) for name in ("epochs", "images", "seconds", "generated", "results", "unsaved")
            },
            "folder": str(self.folder.path),
            "config": to_mapping(self.config),
            "stop": None if self.stop is None else asdict(self.stop),
        }

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> Outcome:
        """Read what `to_mapping` wrote."""
        stop, unsaved = content["stop"], content["unsaved"]
        made = {
            "folder": RunFolder(Path(content["folder"])),
            "config": from_mapping(content["config"], "the outcome"),
            "stop": None if stop is None else Stop(**stop),
            "unsaved": None if unsaved is None else tuple(unsaved),
        }
        return cls(**{**content, **made})
