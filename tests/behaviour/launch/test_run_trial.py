"""Trials in processes of their own: what they measure, and that one which dies or hangs is nothing but excluded."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.launch.processes import ABORTED, Failure
from camoxpert_cli.launch.run_trial import run_trial
from camoxpert_cli.launch.trial import Trial, TrialData
from tests.helpers.dying_worker import DEATH
from tests.helpers.places import ROOT
from tests.helpers.tiny_data import tiny_run

DYING = "tests.helpers.dying_worker"


def tiny_trial(data: Path, gpus: int, **settings: Any) -> Trial:
    """Of stage 2 of `tiny_run`, two steps twice."""
    strategy = "ddp" if gpus > 1 else "single"
    config = tiny_run(data, data / "unused", gpus=gpus, strategy=strategy, **settings).config
    files = find_data([data]).train
    return Trial(config, 2, TrialData(files, tuple(range(8)), (8, 9, 10)), steps=2, repeats=2)


def test_a_trial_in_its_job(tiny_data: Path) -> None:
    """What a worker reads is the trial that was written, with and without images."""
    trial = tiny_trial(tiny_data, 2)

    def read(written: Trial) -> Trial:
        return Trial.from_mapping(json.loads(json.dumps(written.to_mapping())))

    assert read(trial) == trial
    assert read(replace(trial, pictures=None, steps=None)).pictures is None


@pytest.mark.parametrize(("code", "expected"), [(5, 5), (6, None)])
def test_a_worker_that_tells_why(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: int | None
) -> None:
    """Its sentence and its hint are the failure's, and its exit code where a user can mend it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(DEATH, f"told{code}")

    assert run_trial(tiny_trial(tiny_data, 1), threads=1, worker=DYING) == Failure("why", "what helps", expected)


@pytest.mark.parametrize(
    ("gpus", "death", "expected"),
    [
        (1, "9", "a process was killed by SIGKILL, which is how the system ends a process where memory runs out"),
        (1, "11", "a process was killed by SIGSEGV"),
        (1, "6", f"a process {ABORTED}"),
        (1, "exit", "a process ended with exit code 1: ValueError: a bug"),
        (2, "hang", "gave no sign of life for 0.4 s and was ended"),
        (2, "partner", "a process was killed by SIGKILL, which is how the system ends a process where memory runs out"),
    ],
)
def test_a_worker_that_dies_or_hangs(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, death: str, expected: str
) -> None:
    """The trial fails, says of what, and leaves no process behind."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(DEATH, death)
    patience = 0.4 if death == "hang" else 60
    started = time.monotonic()
    outcome = run_trial(tiny_trial(tiny_data, gpus), threads=1, patience=patience, grace=0.1, worker=DYING)

    assert isinstance(outcome, Failure)
    assert outcome.why == expected
    assert time.monotonic() - started < 60
