"""What is told before training starts, and by which of several processes."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.config.resolve import Resolved, resolve, to_mapping
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.errors import CamoxError, DeviceError, TrainingError, UsageError, error_of
from camoxpert_cli.launch import autobatch, decide, start
from camoxpert_cli.launch.continuing import Found
from camoxpert_cli.launch.workers import Attempt
from camoxpert_cli.parallel.worker import worker_environment, write_job
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder

WORDS = "the learning rate does not match the batch size"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `start` does in place of training: launch processes, or train in this one."""
    seen: list[str] = []

    def train(*arguments: object) -> Outcome:
        seen.append("train")
        return Outcome.from_mapping(DONE.outcome or {})

    def run_workers(*arguments: object, **rest: object) -> Attempt:
        seen.append("launch")
        return DONE

    monkeypatch.setattr("camoxpert_cli.engine.train.train", train)
    monkeypatch.setattr("camoxpert_cli.launch.workers.run_workers", run_workers)
    return seen


def warnings(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()

    assert captured.out == ""
    return [line for line in captured.err.splitlines() if line.startswith("Warning: ")]


def test_a_rate_out_of_proportion(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is told once, and training starts all the same."""
    start.start(resolve("quickstart", {"train.stage2_batch_size": "128"}))

    assert trained == ["train"]
    (warning,) = warnings(capsys)
    assert WORDS in warning


def test_a_preset_as_it_is(
    trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is told of a preset, nor of one whose two GPUs became one process on the CPU."""
    monkeypatch.setenv("CAMOX_SESSION_START", str(time.time()))  # this machine may be up for longer than a session is
    start.start(resolve("quickstart", {}))
    start.start(resolve("kaggle-2xT4", {"run.gpus": "1", "run.device": "cpu"}))

    assert trained == ["train", "train"]
    assert warnings(capsys) == []


def test_refused_before_anything_is_measured(trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """DataParallel cannot synchronise BatchNorm: that is told before minutes of measuring memory."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(autobatch, "fit_batches", lambda *arguments: trained.append("measured"))
    flags = {"train.sync_batchnorm": True, "run.gpus": "2", "run.strategy": "dp", "run.device": "cuda"}
    with pytest.raises(UsageError, match="--sync-batchnorm works between processes"):
        start.start(resolve("quickstart", flags))

    assert trained == []


def test_a_run_that_goes_on(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A run with any rates goes on without a word, however far from the defaults; a new rate is told."""
    odd = resolve("quickstart", {"train.lr": "0.5"}).config
    start.start(resolve(None, {}, saved=(to_mapping(odd), "last.pth")))
    before = warnings(capsys)
    start.start(resolve(None, {}, ["train.lr=5"], saved=(to_mapping(odd), "last.pth")))

    assert before == []
    assert len(warnings(capsys)) == 1


def test_several_processes_are_told_once(
    trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The process that starts others tells it, and the workers that run the same command do not."""
    resolved = resolve("quickstart", {"run.gpus": "2", "train.lr": "1"})
    start.start(resolved)
    by_launcher = warnings(capsys)
    be_worker(decide.decide(resolved), tmp_path, monkeypatch)
    warnings(capsys)
    start.work()

    assert trained == ["launch", "train"]
    assert sys.argv == ["camox", "train"]
    assert len(by_launcher) == 1
    assert warnings(capsys) == []


def be_worker(plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process be one that a launcher started, with that plan."""
    write_job(folder, plan=plan.to_mapping(), argv=["camox", "train"], quiet=False)
    for name, value in worker_environment(folder, 0, 1, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(start, "joined", lambda timeout: nullcontext(World()))
    monkeypatch.setattr(sys, "argv", ["camox", "work"])


@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """Training takes place inside it where that is asked for, in one process and in a worker; afterwards it is off."""
    seen: list[bool] = []

    def train(*arguments: object) -> Outcome:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return Outcome.from_mapping(DONE.outcome or {})

    monkeypatch.setattr("camoxpert_cli.engine.train.train", train)
    resolved = resolve("quickstart", {"train.deterministic": wanted})
    start.start(resolved)
    be_worker(decide.decide(resolved), tmp_path, monkeypatch)
    start.work()

    assert seen == [wanted] * 2
    assert not torch.are_deterministic_algorithms_enabled()


class Attempts:
    """In place of workers: ends that are given, and the plans that led there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ends: Attempt) -> None:
        self.ends, self.plans = list(ends), list[Plan]()
        monkeypatch.setattr("camoxpert_cli.launch.workers.run_workers", self.run)

    def run(self, arguments: object, processes: int, *, plan: dict[str, Any], **rest: object) -> Attempt:
        assert processes == 2
        self.plans.append(Plan.from_mapping(plan))
        return self.ends.pop(0)


def failed(code: int, remedy: dict[str, Any] | None = None, *, began: bool = True) -> Attempt:
    return Attempt(error_of(code, "it failed"), began, remedy)


DONE = Attempt(
    None,
    outcome={
        **{
            "epochs": 1,
            "images": 8,
            "seconds": 2.0,
            "unsaved": None,
            "generated": True,
            "results": {},
            "folder": "runs/x",
            "stop": None,
        },
        "config": to_mapping(resolve("quickstart", {}).config),
    },
)


def two_processes(folder: Path, restarts: int) -> Resolved:
    flags = {"run.gpus": "2", "run.checkpoint_dir": str(folder), "run.max_restarts": str(restarts)}
    return resolve("quickstart", flags)


@pytest.mark.parametrize("checkpoint", ["last.pth", "best_model.pth", None])
def test_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], checkpoint: str | None
) -> None:
    """After a crash all start again: from what the run has saved, or anew where there is nothing yet."""
    attempts = Attempts(monkeypatch, failed(137), DONE)
    attempt = attempts.run

    def run(*arguments: Any, **rest: Any) -> Attempt:
        if checkpoint is not None:
            tmp_path.joinpath(checkpoint).touch()
        return attempt(*arguments, **rest)

    monkeypatch.setattr("camoxpert_cli.launch.workers.run_workers", run)
    start.start(two_processes(tmp_path, 1))
    said = capsys.readouterr().err

    assert "Error: it failed\n" in said
    assert "Warning: restarting all 2 processes (restart 1 of 1)" in said
    first, second = attempts.plans
    assert first.checkpoint is None
    # How a run was started is in its checkpoint, once there is one.
    expected = first if checkpoint is None else replace(first, checkpoint=tmp_path, as_given=None)
    assert second == expected


def test_no_restart_of_what_would_fail_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's mistake, a loss that became nan, a signal: none is tried again. A crash is, as often as allowed."""
    for code in (2, 3, 4, 5, 6, 130, 143):
        attempts = Attempts(monkeypatch, failed(code))
        with pytest.raises(CamoxError):
            start.start(two_processes(tmp_path, 3))
        assert attempts.ends == []
    attempts = Attempts(monkeypatch, *[failed(9)] * 3)
    with pytest.raises(CamoxError) as caught:
        start.start(two_processes(tmp_path, 2))

    assert caught.value.exit_code == 9
    assert attempts.ends == []


def test_a_gpu_that_fails_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again once there is a checkpoint; one that could not be used from the beginning is not."""
    attempts = Attempts(monkeypatch, failed(5))
    with pytest.raises(DeviceError):
        start.start(two_processes(tmp_path, 1))
    attempts = Attempts(monkeypatch, failed(5), DONE)
    resolved = two_processes(tmp_path / "run", 1)
    plan = decide.decide(resolved)
    plan.folder.mkdir()
    RunFolder(plan.folder).last.touch()
    start._train_in_workers(plan)

    assert [each.checkpoint for each in attempts.plans] == [None, tmp_path / "run"]
    # The folder of a run that was to go on held a checkpoint before.
    attempts = Attempts(monkeypatch, failed(5, began=False))
    with pytest.raises(DeviceError):
        start._train_in_workers(plan)


def test_best_weights_alone_are_no_place_to_go_on_from(tmp_path: Path) -> None:
    """Of a run that goes on from elsewhere, which has saved nothing yet: they were copied, and are older."""
    elsewhere = tmp_path / "source" / "last.pth"
    plan = replace(decide.decide(two_processes(tmp_path, 0)), checkpoint=elsewhere)
    RunFolder(tmp_path).best.touch()
    before = plan.going_on(plan.config)
    RunFolder(tmp_path).previous.touch()

    assert before == plan
    assert plan.going_on(plan.config).checkpoint == tmp_path


def test_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Smaller batches that a worker left are taken once, beside the restarts after crashes."""
    resolved = two_processes(tmp_path, 3)
    config = replace(resolved.config, train=replace(resolved.config.train, batch_size=2, stage2_batch_size=1))
    attempts = Attempts(monkeypatch, failed(6, to_mapping(config)), failed(6, to_mapping(config)))
    with pytest.raises(CamoxError):
        start.start(resolved)

    assert [each.config.train.batch_size for each in attempts.plans] == [resolved.config.train.batch_size, 2]
    words = "restarting all 2 processes from the beginning, using batch sizes 2 and 1 (stages 1 and 2)"
    assert words in " ".join(capsys.readouterr().err.split())


def test_processes_that_could_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder through which they speak was removed under them."""
    Attempts(monkeypatch, Attempt(None))
    with pytest.raises(TrainingError, match="their results are lost: the temporary folder was removed") as caught:
        start.start(two_processes(tmp_path / "run", 1))

    assert str(tmp_path / "run") in caught.value.hint


@pytest.mark.parametrize(("settings", "wait"), [({}, 0.0), ({"run.continue": True}, 60.0)], ids=["starts", "continues"])
def test_how_long_a_folder_is_waited_for(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], wait: float
) -> None:
    """A command that was run again meets the process that it replaces; a user who is mistaken is told at once."""
    waited: list[float] = []
    locked = RunFolder.locked

    def lock(self: RunFolder, *, shared: bool = False, wait: float = 0.0) -> Any:
        waited.append(wait)
        return locked(self, shared=shared)

    monkeypatch.setattr(RunFolder, "locked", lock)
    start.start(resolve("quickstart", {"run.checkpoint_dir": str(tmp_path), **settings}))

    assert waited == [wait]
    assert trained == ["train"]


def test_a_complete_run_is_not_trained(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was found in the folder is the outcome."""
    outcome = Outcome.from_mapping(DONE.outcome or {})
    monkeypatch.setattr(start, "find_run", lambda resolved, *rest: Found(resolved, outcome=outcome))

    assert start.start(resolve("quickstart", {"run.checkpoint_dir": str(tmp_path)})) is outcome
    assert trained == []
