"""Where an evaluation takes place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.config.schema import RunConfig
from camoxpert_cli.errors import DataError, error_of
from camoxpert_cli.launch import evaluate as evaluate_module
from camoxpert_cli.launch.evaluate import evaluate
from camoxpert_cli.launch.workers import Attempt
from camoxpert_cli.parallel.worker import JOB

TWO = RunConfig(device="cpu", gpus=2)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is started instead of processes, or scored in this one."""
    found: list[Any] = []

    def run_workers(command: Any, processes: int, *, threads: int) -> Attempt:
        assert threads >= 1
        found.append((command, processes))
        return Attempt(error_of(3, "broken picture") if command == ["broken"] else None)

    def score(checkpoint: Path, data: object, inference: object, protocol: object, placement: Any, _: object) -> Any:
        found.append((checkpoint, placement.count))
        return "scores"

    monkeypatch.setattr(evaluate_module, "run_workers", run_workers)
    monkeypatch.setattr(evaluate_module, "evaluate_checkpoint", score)
    return found


def evaluated(run: RunConfig, command: str = "eval") -> Any:
    anything: Any = None
    return evaluate(Path("x"), anything, anything, anything, run, anything, command=[command])


def test_one_device(done: list[Any]) -> None:
    """This process scores."""
    assert evaluated(RunConfig(device="cpu")) == "scores"
    assert done == [(Path("x"), 1)]


def test_several(done: list[Any]) -> None:
    """As many processes do, by the same command; what they fail of is raised."""
    assert evaluated(TWO) is None
    with pytest.raises(DataError, match="broken picture"):
        evaluated(TWO, "broken")

    assert done == [(["eval"], 2), (["broken"], 2)]


def test_in_one_of_several(done: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was started for it scores its part, and starts nobody."""
    monkeypatch.setenv(JOB, "folder/job.json")
    monkeypatch.setenv("WORLD_SIZE", "2")

    assert evaluated(TWO) == "scores"
    assert done == [(Path("x"), 2)]
