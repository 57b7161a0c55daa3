"""What a run tells of itself: metrics.jsonl, TensorBoard's curves, and what the lines on the screen remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from camoxpert_cli.engine.build import RunData
from camoxpert_cli.engine.stages import Phase
from camoxpert_cli.engine.state import TrainingState
from camoxpert_cli.engine.tensorboard import FOLDER, Curves
from camoxpert_cli.engine.throughput import Throughput
from camoxpert_cli.run_folder import RunFolder


@dataclass
class Reporter:
    """The lines themselves are made in `status.py`."""

    folder: RunFolder
    data: RunData
    state: TrainingState
    curves: Curves | None = None
    throughput: Throughput = field(default_factory=Throughput)
    data_wait: float = 0.0  # share of the last epoch's training time that was spent waiting for images, 0..1
    told_of_dead_experts: bool = False
    told: tuple[Phase, bool] | None = None  # the phase whose forecast was said, and whether it fitted the clock

    def open_curves(self) -> None:
        """Draw curves from where the run stands."""
        self.curves = Curves(self.folder.path / FOLDER, self.position)

    @property
    def position(self) -> int:
        """Training images seen since the run began, and one more for each epoch that was closed."""
        progress = self.state.progress
        return progress.epoch * (len(self.data.train) + 1) + progress.samples

    def record(self, event: str, **values: Any) -> None:
        """Write down what happened where the run stands: in metrics.jsonl, and as curves where they are wanted."""
        self.folder.log(event, **values)
        if self.curves is not None:
            self.curves.write(event, values, self.position)

    def close(self) -> None:
        if self.curves is not None:
            self.curves.close()
