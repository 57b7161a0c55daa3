"""Runs that are fitted to their time, on a machine whose time passes as training, scoring and saving take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.config.resolve import CHOSEN_BY_FIT, to_mapping
from camoxpert_cli.config.schema import SETTINGS
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.train import train
from tests.behaviour.engine.test_train import CIRCUMSTANCES, differing
from tests.helpers.run_files import events
from tests.helpers.tiny_data import tiny_plan
from tests.helpers.timed_runs import Machine, fitted_plan, on_machine

RECIPE: dict[str, Any] = {"epochs": 4, "stage1_epochs": 2, "warmup_epochs": 1, "progressive_unfreeze": False}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    on_machine(machine, monkeypatch)
    return machine


def numbers(outcome: Outcome) -> dict[str, Any]:
    """The numbers of epochs that were chosen, by the names of their settings."""
    return {SETTINGS[key].name: SETTINGS[key].of(outcome.config) for key in CHOSEN_BY_FIT}


def test_it_is_the_run_with_these_numbers(tiny_data: Path, tmp_path: Path, machine: Machine) -> None:
    """A fitted run ends in time, at the end of its schedule, and is bitwise the run with the same numbers typed."""
    outcome = train(fitted_plan(tiny_data, tmp_path / "run", "150s", **RECIPE))
    ended = machine.now
    typed = train(tiny_plan(tiny_data, tmp_path / "typed", **{**RECIPE, **numbers(outcome)}))

    assert outcome.results is not None
    assert numbers(outcome) == {"epochs": 5, "stage1_epochs": 2, "warmup_epochs": 1, "last_epoch_images": 6}
    assert 0.95 * 150 <= ended <= 150
    assert differing(outcome.folder, typed.folder) == []
    assert (outcome.images, outcome.epochs) == (typed.images, typed.epochs)
