"""Reporting of a run: metrics.jsonl, TensorBoard curves, a tracker, and the state behind the printed lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.build import RunData
from camoxpert_cli.engine.stages import Kind
from camoxpert_cli.engine.state import TrainingState
from camoxpert_cli.engine.tensorboard import FOLDER, Curves
from camoxpert_cli.engine.throughput import Throughput
from camoxpert_cli.engine.tracker import Tracker
from camoxpert_cli.run_folder import RunFolder


@dataclass
class Reporter:
    """Logs of a run; the printed lines themselves are made in `status.py`."""

    folder: RunFolder
    data: RunData
    state: TrainingState
    curves: Curves | None = None
    tracker: Tracker | None = None
    throughput: Throughput = field(default_factory=Throughput)
    data_wait: float = 0.0  # share of the last epoch's training time spent waiting for images, 0..1
    told_of_dead_experts: bool = False
    told: tuple[Kind, bool] | None = (
        None  # the kind of phase whose forecast was printed, and whether it fits the time limit
    )

    def open_curves(self) -> None:
        """Start TensorBoard curves at the run's current position."""
        self.curves = Curves(self.folder.path / FOLDER, self.position)

    def open_tracker(self, config: Config, source: Path | None) -> None:
        """Start tracking at the run's current position; `source` is the folder of the run that is resumed."""
        self.tracker = Tracker(self.folder.path, to_mapping(config), source)

    @property
    def position(self) -> int:
        """Training images seen since the run began, plus one for each completed epoch."""
        progress = self.state.progress
        return progress.epoch * (self.data.images_per_epoch + 1) + progress.samples

    def record(self, event: str, **values: Any) -> None:
        """Log an event at the current position: to metrics.jsonl and, if enabled, to TensorBoard and the tracker."""
        self.folder.log(event, **values)
        if self.curves is not None:
            self.curves.write(event, values, self.position)
        if self.tracker is not None:
            self.tracker.write(event, values, self.position)

    def summarize(self, results: Mapping[str, Any]) -> None:
        """Record the results of a complete run in the tracker, if enabled."""
        if self.tracker is not None:
            self.tracker.summarize(results)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.curves is not None:
            self.curves.close()
        if self.tracker is not None:
            self.tracker.close(failed=kind is not None)
