"""The plan of a run: everything that is decided before its first step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from camoxpert_cli.checkpoints.format import Settings
from camoxpert_cli.config.resolve import from_mapping, to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.strategy_choice import Choice
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.parallel.device import Placement
from camoxpert_cli.run_folder import RunFolder


@dataclass(frozen=True)
class Plan:
    """Plan of a run, made once by `launch.decide` and read by each process of the run and after each restart.

    `config` has absolute paths and batch sizes that fit in the GPUs' memory. The run is saved in `folder` and resumes
    from `checkpoint`, a file or a run folder, if given. `choice` is the strategy selected by trials, if there were any.
    `as_given` are the settings of a new run before they were fitted to the machine; None if a saved run is resumed.
    If the number of epochs is still to be fitted to the time, `fits_since` is when camox began, in seconds of
    `time.monotonic`.
    A run that `saves_first` can be resumed exactly from its first step on.
    Only the dtype is missing: querying a GPU for it takes memory there, so processes do that once they compute on it.
    """

    config: Config
    folder: Path
    checkpoint: Path | None
    placement: Placement
    choice: Choice | None
    deadline: Deadline
    as_given: Settings | None = None
    fits_since: float | None = None
    saves_first: bool = False

    def going_on(self, config: Config) -> Plan:
        """Return the plan of another attempt, with these settings, from what the run has saved so far, if anything."""
        folder = RunFolder(self.folder)
        # The best weights alone may be older than the checkpoint this run resumed from.
        saved = folder.last.exists() or folder.previous.exists() or (self.checkpoint is None and folder.best.exists())
        if not saved:
            return replace(self, config=config)
        return replace(self, config=config, checkpoint=self.folder, as_given=None)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        return {
            "config": to_mapping(self.config),
            "folder": str(self.folder),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "placement": {**asdict(self.placement), "devices": [str(each) for each in self.placement.devices]},
            "choice": None if self.choice is None else asdict(self.choice),
            "deadline": None if self.deadline.end == math.inf else asdict(self.deadline),
            "as_given": self.as_given,
            "fits_since": self.fits_since,
            "saves_first": self.saves_first,
        }

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> Plan:
        """Read what `to_mapping` wrote."""
        placement = dict(content["placement"])
        placement["devices"] = tuple(torch.device(each) for each in placement["devices"])
        checkpoint, choice, deadline = content["checkpoint"], content["choice"], content["deadline"]
        return cls(
            from_mapping(content["config"], "the plan"),
            Path(content["folder"]),
            None if checkpoint is None else Path(checkpoint),
            Placement(**placement),
            None if choice is None else Choice(**choice),
            Deadline() if deadline is None else Deadline(**deadline),
            content["as_given"],
            content["fits_since"],
            content["saves_first"],
        )
