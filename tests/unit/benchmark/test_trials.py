"""Which trials the benchmark makes of what it is asked to compare."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.benchmark import benchmark as benchmark_module
from camoxpert_cli.benchmark.benchmark import benchmark
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_trial import TrialResult
from camoxpert_cli.launch.trial import Trial
from tests.helpers.tiny_data import TRAINING_IMAGES
from tests.unit.benchmark.test_benchmark import measured

SMALL: dict[str, Any] = {
    **{"model.backbone": "test_resnet", "model.num_experts": 2, "model.pretrained": False},
    **{"data.img_size": 64, "data.num_workers": 0, "data.cache": "off", "run.device": "cpu"},
}


@pytest.fixture(autouse=True)
def _platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for it starts a program."""
    monkeypatch.setattr(platform, "platform", lambda: "Linux")


class Trials:
    """In place of trials: notes what is tried, and with how many threads."""

    def __init__(self, *outcomes: TrialResult) -> None:
        self.outcomes = list(outcomes)
        self.tried: list[tuple[Trial, int]] = []

    def __call__(self, trial: Trial, threads: int) -> TrialResult:
        self.tried.append((trial, threads))
        return self.outcomes.pop(0) if self.outcomes else measured(10)


def test_all_that_is_compared(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage with each count, at the preset's images a step, with the same cores for each process."""
    monkeypatch.setattr(benchmark_module, "cores_each", lambda processes: 12 // processes)
    trials = Trials()
    flags = {**SMALL, "data.dataset_path": [str(tiny_data)], "data.val_fraction": 0.25}
    result = benchmark("kaggle-2xT4", flags, [1, 2, 4], None, steps=2, repeats=3, attempt=trials)
    settings = [(trial.gpus, trial.config.run.strategy, trial.stage, threads) for trial, threads in trials.tried]

    assert settings == [
        *((1, "single", stage, 3) for stage in (1, 2)),
        *((count, "ddp", stage, 3) for count in (2, 4) for stage in (1, 2)),
    ]
    assert {trial.config.global_batches for trial, _ in trials.tried} == {(32, 24)}
    assert {(trial.steps, trial.repeats) for trial, _ in trials.tried} == {(2, 3)}
    assert [row.step_images for row in result.rows] == [32, 24] * 3
    assert (result.train, result.validation) == (TRAINING_IMAGES - 3, 3)
    data = trials.tried[0][0].images
    assert data is not None
    assert (len(data.files), len(data.train), len(data.validation)) == (TRAINING_IMAGES, TRAINING_IMAGES - 3, 3)
    assert set(data.train) | set(data.validation) == set(range(TRAINING_IMAGES))


def test_one_that_fails(tiny_data: Path) -> None:
    """The others are measured all the same, against the first count where that has a number."""
    trials = Trials(Failure("the GPU ran out of memory"), measured(10), measured(15), measured(30))
    flags = {**SMALL, "data.dataset_path": [str(tiny_data)]}
    result = benchmark("kaggle-2xT4", flags, [1, 2], None, steps=1, repeats=1, attempt=trials)

    assert [row.speedup for row in result.rows] == [None, 1.0, None, 3.0]
