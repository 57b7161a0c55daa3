"""Runs that are fitted to their time, on a machine whose time passes as training, scoring and saving take it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.config.resolve import CHOSEN_BY_FIT, from_mapping
from camoxpert_cli.config.schema import SETTINGS, Config
from camoxpert_cli.engine import training_steps
from camoxpert_cli.engine.out_of_memory import OutOfMemory
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.train import train
from camoxpert_cli.errors import Interrupted, TrainingError, UsageError
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.launch.resume import settings_to_go_on
from camoxpert_cli.run_folder import RunFolder
from tests.behaviour.engine.test_train import CIRCUMSTANCES
from tests.helpers.compare import differences
from tests.helpers.run_files import events, read_json
from tests.helpers.timed_runs import Machine, fitted_plan, on_machine
from tests.helpers.tiny_data import tiny_plan

# Python 3.12 warns of any fork while threads run; workers use none of the parent's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

# An epoch of stage 1 takes 8 s, one of stage 2 24 s; measuring takes 55 s.
RECIPE: dict[str, Any] = {"epochs": 8, "stage1_epochs": 4, "warmup_epochs": 1, "progressive_unfreeze": False}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Nothing is learned on it."""
    machine = Machine()
    on_machine(machine, monkeypatch)
    return machine


def differing(first: RunFolder, second: RunFolder) -> list[str]:
    """Where checkpoints and steps of two runs are not the same to the last bit, except how they were started."""
    ignored = {*CIRCUMSTANCES, "fit", "start"}
    return [
        *differences(read_checkpoint(first.last), read_checkpoint(second.last), ignored, "last"),
        *differences(read_checkpoint(first.best), read_checkpoint(second.best), ignored, "best"),
        *differences(events(first, "step"), events(second, "step"), ignored, "steps"),
    ]


def numbers(config: Config) -> dict[str, Any]:
    """The numbers of epochs that were chosen, by the names of their settings."""
    return {SETTINGS[key].name: SETTINGS[key].of(config) for key in CHOSEN_BY_FIT}


def resumed(folder: Path, machine: Machine, *assignments: str, **flags: Any) -> Outcome:
    """What comes of resuming the run in a new session."""
    checkpoint = find_checkpoint(folder)
    return train(decide(settings_to_go_on(checkpoint, flags, assignments), checkpoint, machine.now), None, checkpoint)


def test_it_is_the_run_with_these_numbers(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fitted run ends in time, at the end of its schedule, and is bitwise the run with the same numbers typed.

    That what was measured left no trace holds for loader workers, too, which have loaded more than was needed.
    """
    machine = Machine()
    on_machine(machine, monkeypatch, learns=True)
    outcome = train(fitted_plan(tiny_data, tmp_path / "run", "150s", num_workers=2, **RECIPE))
    ended, said = machine.now, capsys.readouterr().err
    typed = train(tiny_plan(tiny_data, tmp_path / "typed", **{**RECIPE, **numbers(outcome.config)}))
    rates = [line["lr"] for line in events(outcome.folder, "step")]

    assert outcome.results is not None
    assert numbers(outcome.config) == {
        "epochs": 5,
        "stage1_epochs": 2,
        "warmup_epochs": 1,
        "last_epoch_images": 6,
    }
    assert 0.95 * 150 <= ended <= 150
    assert differing(outcome.folder, typed.folder) == []
    assert (outcome.images, outcome.epochs) == (typed.images, typed.epochs) == (38, 5)
    assert [line["samples"] for line in events(outcome.folder, "step")][-2:] == [3, 6]
    assert rates[-1] == min(rates) < 0.1 * max(rates)
    assert (
        "\nFit         150s: 5 epochs (2 + 3), the last one with 6 of 8 images\n            expected to end in 1m"
        in said
    )
    assert "(enough time)" in said
    assert "stops in epoch" not in said
    assert "Fitted to" not in said


def test_it_ends_early(tiny_data: Path, tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """With a patience, a fitted run may end before its time, and its number of epochs is no longer changed."""
    outcome = train(fitted_plan(tiny_data, tmp_path / "run", "250s", **RECIPE, patience=1))
    train_settings = outcome.config.train

    assert outcome.results is not None
    assert outcome.epochs == train_settings.stage1_epochs + train_settings.warmup_epochs + 1 < train_settings.epochs
    assert machine.now < 0.95 * 250
    assert "now" not in capsys.readouterr().err.partition("Training ends")[2]


def test_it_follows_the_time(
    tiny_data: Path, tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a machine that becomes slower, the run is shortened, and all that tells its length says so."""
    machine.slowness = lambda now: 1.0 if now < 100 else 1.6
    outcome = train(fitted_plan(tiny_data, tmp_path / "run", "250s", **RECIPE))
    said = capsys.readouterr().err
    stored = from_mapping(find_checkpoint(outcome.folder.path).content["config"], "last.pth")

    assert 250 - 1.6 * 3 * 3 - 5 <= machine.now <= 250  # a step takes so long
    assert outcome.results is not None
    assert "Fit         250s: 11 epochs (6 + 5)\n            expected to end in 3m9s\n" in said
    assert "Fitted to 250s: now 9 epochs (6 + 3)" in said
    assert f"Epoch {outcome.epochs}/{outcome.epochs} " in said
    assert outcome.epochs == outcome.config.train.epochs == 9
    assert numbers(stored) == numbers(outcome.config)
    assert numbers(from_mapping(outcome.folder.settings, "config.yaml")) == numbers(outcome.config)
    assert len(read_json(outcome.folder.history)) == outcome.epochs


def test_a_last_epoch_that_is_slower(tiny_data: Path, tmp_path: Path, machine: Machine) -> None:
    """The last epoch ends as soon as there is no time for another step, and the run with it, all in time."""
    usual = train(fitted_plan(tiny_data, tmp_path / "usual", "170s", **RECIPE))
    last_began = machine.now - 25  # for two steps of 9 s, validation, saving and the end
    machine.now, machine.slowness = 0.0, lambda now: 1.0 if now < last_began else 1.9
    slow = train(fitted_plan(tiny_data, tmp_path / "slow", "170s", **RECIPE))

    assert (usual.epochs, usual.config.train.last_epoch_images) == (7, 6)
    assert (slow.epochs, slow.config.train.last_epoch_images) == (7, 3)
    assert slow.results is not None
    assert machine.now <= 170


@pytest.mark.parametrize("fit", ["3x100s", "2x150s"])
def test_several_sessions(tiny_data: Path, tmp_path: Path, machine: Machine, fit: str) -> None:
    """The epochs fit into all sessions together; resuming does not change them, and the last session ends the run."""
    count, length = (int(part) for part in fit.removesuffix("s").split("x"))
    outcome = train(fitted_plan(tiny_data, tmp_path / "run", fit, **RECIPE))
    chosen, ends = numbers(outcome.config), [machine.now]
    for session in range(1, count):
        assert outcome.stop is not None
        assert outcome.stop.reason.startswith(f"stopped by the time limit of {format_duration(length)} (--fit ")
        machine.now = began = session * 1000.0
        outcome = resumed(tmp_path / "run", machine)
        ends.append(machine.now - began)

        assert numbers(outcome.config) == chosen
    assert outcome.results is not None
    assert max(ends) <= length


def stop_at_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run be stopped by a signal in that optimizer step, counted from 1."""
    step, done = training_steps.optimizer_step, 0

    def stopping(*arguments: Any) -> float | None:
        nonlocal done
        done += 1
        if done == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(training_steps, "optimizer_step", stopping)


def test_resumed_in_the_last_epoch(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run stopped within a last epoch of some images goes on to be the one that was never stopped."""
    settings = {**RECIPE, "epochs": 3, "stage1_epochs": 1, "last_epoch_images": 6}
    whole = train(tiny_plan(tiny_data, tmp_path / "whole", **settings))
    with monkeypatch.context() as patch:
        stop_at_step(2 + 3 + 1, patch)
        with pytest.raises(Interrupted, match="in epoch 3 of 3, 3 images into it"):
            train(tiny_plan(tiny_data, tmp_path / "cut", **settings))
    resumed(tmp_path / "cut", Machine())

    assert differing(whole.folder, RunFolder(tmp_path / "cut")) == []


def test_resumed_after_the_last_step(
    tiny_data: Path, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images that the last epoch has were seen: it is validated and scored, without another step."""
    stop_at_step(2 + 3 + 2, monkeypatch)
    with pytest.raises(Interrupted, match="in epoch 3 of 3, 6 images into it"):
        train(
            tiny_plan(
                tiny_data, tmp_path / "run", **{**RECIPE, "epochs": 3, "stage1_epochs": 1, "last_epoch_images": 6}
            )
        )
    outcome = resumed(tmp_path / "run", machine)

    assert outcome.results is not None
    assert len(events(outcome.folder, "step")) == 2 + 3 + 2
    assert read_json(outcome.folder.history)[-1]["train_loss"] == 1.0


@pytest.mark.parametrize("at_end", [False, True])
def test_a_longer_run_completes_the_epoch(tiny_data: Path, tmp_path: Path, machine: Machine, at_end: bool) -> None:
    """With more epochs, the epoch that was the last one has all images; if it is complete, it stays as it is."""
    settings = {**RECIPE, "epochs": 4, "stage1_epochs": 2, "last_epoch_images": 3, "save_every": "1"}
    plan = tiny_plan(tiny_data, tmp_path / "run", **settings)
    first = train(plan)
    folder = first.folder
    if not at_end:
        shutil.copy(folder.previous, folder.last)
    longer = resumed(folder.path, machine, **{"train.epochs": 5})
    images = [line["samples"] for line in events(longer.folder, "step") if line["epoch"] == 4]

    assert longer.config.train.last_epoch_images is None
    assert images == ([3] if at_end else [3, 6, 8])
    assert [line["samples"] for line in events(longer.folder, "step") if line["epoch"] == 5] == [3, 6, 8]


def test_too_short(tiny_data: Path, tmp_path: Path, machine: Machine) -> None:
    """If not even an epoch of each stage fits, the error says how long it takes here, and so long is enough."""
    with pytest.raises(UsageError) as caught:
        train(fitted_plan(tiny_data, tmp_path / "run", "70s", **RECIPE))
    length = caught.value.hint.removeprefix("--fit ")
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    machine.now = 0.0
    outcome = train(fitted_plan(tiny_data, tmp_path / "run", length, **RECIPE))

    assert caught.value.message == (
        "the time limit of 1m10s (--fit 1m10s) is too short: on this machine, the shortest run of this kind, "
        "2 epochs (1 + 1), the last one "
        f"with 4 of 8 images, takes {length}"
    )
    assert left == []
    assert outcome.results is not None
    assert outcome.epochs == 2


def test_another_limit_is_too_short(tiny_data: Path, tmp_path: Path, machine: Machine) -> None:
    """The earliest limit counts, and is the one that is named."""
    with pytest.raises(UsageError, match=r"^the time limit of 1m10s is too short") as caught:
        train(fitted_plan(tiny_data, tmp_path / "run", "1h", time_limit="70s", **RECIPE))

    assert caught.value.hint.startswith("a later end than the time limit of 1m10s, and --fit ")


def test_stopped_while_measuring(
    tiny_data: Path, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal ends it between two steps; nothing was chosen, and nothing is left."""
    stop_at_step(2, monkeypatch)
    with pytest.raises(Interrupted, match="stopped by SIGTERM while the pace was measured, before the first") as caught:
        train(fitted_plan(tiny_data, tmp_path / "run", "200s", **RECIPE))

    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert machine.now == 2 * 4.0  # for two steps, and nothing else
    assert [*(tmp_path / "run").iterdir()] == []


def test_what_a_killed_process_left(tiny_data: Path, tmp_path: Path, machine: Machine) -> None:
    """A hidden folder of measurements is removed by the next one, which leaves none itself."""
    left = tmp_path / "run" / ".camox-fit-0123"
    left.mkdir(parents=True)
    (left / "best_model.pth").touch()
    outcome = train(fitted_plan(tiny_data, tmp_path / "run", "150s", **RECIPE))

    assert outcome.results is not None
    assert not [path for path in outcome.folder.path.iterdir() if path.name.startswith(".")]


def test_a_restart_keeps_what_was_chosen(tiny_data: Path, tmp_path: Path, machine: Machine) -> None:
    """Processes that are started again after a crash take the numbers of epochs from the checkpoint."""
    plan = fitted_plan(tiny_data, tmp_path / "run", "150s", **RECIPE)
    crash = 100.0

    def crashing(now: float) -> float:
        if now > crash:
            raise TrainingError("crash")
        return 1.0

    machine.slowness = crashing
    with pytest.raises(TrainingError, match="crash"):
        train(plan)
    machine.slowness = lambda now: 1.0
    restarted = train(plan.going_on(plan.config))

    assert numbers(restarted.config) == {
        "epochs": 5,
        "stage1_epochs": 2,
        "warmup_epochs": 1,
        "last_epoch_images": 6,
    }
    assert [line["event"] for line in events(restarted.folder, "resume")] == ["resume"]


def test_a_run_that_goes_on_is_not_fitted(
    tiny_data: Path, tmp_path: Path, machine: Machine, plain_run: RunFolder
) -> None:
    """--fit is for new runs: with a checkpoint that is resumed, the hint is a time limit."""
    plan = fitted_plan(tiny_data, tmp_path / "run", "150s", resume_from=str(plain_run.last), **RECIPE)
    with pytest.raises(UsageError, match="continues a run of 2 epochs") as caught:
        train(plan)

    assert caught.value.hint == f"camox resume {plain_run.last} --time-limit 2m30s"


def test_memory_that_runs_out_while_measuring(
    tiny_data: Path, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings to continue with are the run's own, with smaller batches, and not those that are measured with."""

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(training_steps, "optimizer_step", full)
    plan = fitted_plan(tiny_data, tmp_path / "run", "150s", **RECIPE)
    with pytest.raises(OutOfMemory) as caught:
        train(plan)
    smaller = caught.value.smaller

    assert smaller is not None
    assert (smaller.train.batch_size, smaller.train.accumulation_steps) == (2, 2)
    assert (smaller.train.lr, smaller.train.epochs) == (plan.config.train.lr, plan.config.train.epochs)
    assert "no weights had been saved" in caught.value.message
