"""The strategy that `auto` takes: decided by trials, shown, remembered, and kept in the run folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.config.schema import Config, RunConfig
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.engine.strategy_choice import Choice
from camoxpert_cli.errors import CamoxError, DataError, DeviceError
from camoxpert_cli.launch import autobatch, decide, start
from camoxpert_cli.launch.auto_strategy import choose, fastest, identity
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_trial import TrialResult
from camoxpert_cli.launch.trial import Measurement, Trial
from camoxpert_cli.launch.workers import Attempt
from camoxpert_cli.parallel.device import Placement, is_undecided
from camoxpert_cli.parallel.strategy import StrategyName
from camoxpert_cli.run_folder import STRATEGY_FILE, RunFolder
from tests.helpers.tiny_data import tiny_run

CRASH = Failure("a process was killed by SIGSEGV")
TWO_PROCESSES = Placement("ddp", (torch.device("cpu"),) * 2, 2)


def measured(*rates: float) -> Measurement:
    return Measurement("GPU", 2, 1, list(rates), [], [], None, None, None, 1000.0)


class Attempts:
    """Stands for trials: hands out prepared outcomes and notes what was tried."""

    def __init__(self, **outcomes: TrialResult) -> None:
        self.outcomes = outcomes
        self.trials: list[Trial] = []

    def __call__(self, trial: Trial, threads: int) -> TrialResult:
        assert threads >= 1
        self.trials.append(trial)
        return self.outcomes[trial.config.run.strategy]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def two_gpus(data: Path, folder: Path, **settings: Any) -> Config:
    return tiny_run(data, folder, gpus=2, **settings).config


@pytest.mark.parametrize(
    ("outcomes", "expected", "excluded"),
    [
        ({"ddp": measured(90, 100, 200), "dp": measured(80)}, "ddp", []),
        ({"ddp": measured(100), "dp": measured(90, 130, 140)}, "dp", []),
        ({"ddp": measured(100), "dp": measured(101)}, "ddp", []),  # alike
        ({"ddp": measured(100), "dp": measured(80, 90, 300)}, "ddp", []),
        ({"ddp": CRASH, "dp": measured(1)}, "dp", ["ddp"]),
        ({"ddp": measured(1), "dp": CRASH}, "ddp", ["dp"]),
    ],
)
def test_deciding(outcomes: dict[StrategyName, TrialResult], expected: str, excluded: list[str]) -> None:
    """The higher median wins, ddp where they are alike; one that failed is excluded with its reason."""
    choice = fastest(outcomes)

    assert choice.strategy == expected
    assert list(choice.excluded) == excluded
    assert set(choice.excluded.values()) <= {CRASH.why}


def test_nothing_works() -> None:
    """Where no strategy works that is the error, with every cause and what helps against one of them."""
    with pytest.raises(DeviceError, match="no strategy works on these GPUs") as caught:
        fastest({"ddp": CRASH, "dp": Failure("the GPU ran out of memory", "smaller --batch-size")})

    assert caught.value.details == "  ddp: a process was killed by SIGSEGV\n  dp: the GPU ran out of memory"
    assert caught.value.hint == "smaller --batch-size"


def test_settings_that_work_nowhere() -> None:
    """Where all end with the same error it is that one, with its own exit code."""
    wrong = Failure("there is no backbone 'edgenxt'", "--backbone edgenext_base", 2)
    with pytest.raises(CamoxError, match="there is no backbone 'edgenxt'") as caught:
        fastest({"ddp": wrong, "dp": wrong})

    assert (caught.value.exit_code, caught.value.hint) == (2, "--backbone edgenext_base")


def test_no_images_no_trials(tiny_data: Path, tmp_path: Path) -> None:
    """A folder that is not there is told before anything is tried."""
    attempts = Attempts()
    with pytest.raises(DataError, match=r"folder .* not found"):
        choose(two_gpus(tmp_path / "gone", tmp_path / "run"), TWO_PROCESSES, None, attempt=attempts)

    assert attempts.trials == []


def test_choosing_once(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are tried in the stage that takes most; a failure is shown; the same machine and sizes try no more."""
    attempts = Attempts(ddp=CRASH, dp=measured(50))
    config = two_gpus(tiny_data, tmp_path / "run")
    first = choose(config, TWO_PROCESSES, None, attempt=attempts)
    told = capsys.readouterr().err
    again = choose(config, TWO_PROCESSES, None, attempt=attempts)

    assert [(each.config.run.strategy, each.stage, each.gpus) for each in attempts.trials] == [
        ("ddp", 2, 2),
        ("dp", 2, 2),
    ]
    assert first == again
    assert first.strategy == "dp"
    assert "Warning: strategy ddp failed on these GPUs: a process was killed by SIGSEGV\n" in told
    assert "Strategy: dp (dp 50.0 img/s, ddp failed)\n" in told
    assert "from an earlier trial" in capsys.readouterr().err


@pytest.mark.parametrize("changed", [{"img_size": 96}, {"stage2_batch_size": 2}, {"num_experts": 4}])
def test_other_sizes_are_tried_anew(tiny_data: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    """What was remembered counts for the same network and sizes only."""
    attempts = Attempts(ddp=measured(2), dp=measured(1))
    choose(two_gpus(tiny_data, tmp_path / "run"), TWO_PROCESSES, None, attempt=attempts)
    choose(two_gpus(tiny_data, tmp_path / "run", **changed), TWO_PROCESSES, None, attempt=attempts)

    assert len(attempts.trials) == 4


def test_the_run_folder_remembers(tiny_data: Path, tmp_path: Path) -> None:
    """A resumed run takes what its folder says, unless that is of another machine or damaged."""
    config = two_gpus(tiny_data, tmp_path / "run")
    kept = Choice("dp", {"dp": 3.0}, {}, identity(config, TWO_PROCESSES))
    (tmp_path / STRATEGY_FILE).write_text(kept.to_text())

    assert choose(config, TWO_PROCESSES, tmp_path, attempt=Attempts()) == kept
    for text in (json.dumps({**json.loads(kept.to_text()), "key": "another"}), '{"strategy": "dp"}', "[", "7"):
        (tmp_path / STRATEGY_FILE).write_text(text)
        attempts = Attempts(ddp=measured(2), dp=measured(1))
        assert choose(config, TWO_PROCESSES, tmp_path, attempt=attempts).strategy == "ddp"


def test_a_choice_holds_wherever_weights_lie(tiny_data: Path, tmp_path: Path) -> None:
    """The same network is not tried again because its first weights moved; another network is."""
    config = two_gpus(tiny_data, tmp_path / "run")
    moved = replace(config, model=replace(config.model, pretrained=True, backbone_weights="/kaggle/input/weights.pth"))
    here = replace(config, model=replace(config.model, pretrained=True))
    larger = replace(here, model=replace(here.model, num_experts=here.model.num_experts + 1))

    assert identity(moved, TWO_PROCESSES) == identity(here, TWO_PROCESSES) != identity(larger, TWO_PROCESSES)


@pytest.mark.parametrize("content", ["[1]", "not JSON", '{"x": 1}'])
def test_a_damaged_memory(tiny_data: Path, tmp_path: Path, content: str) -> None:
    """A file of remembered choices that is none is written anew."""
    path = tmp_path / "cache" / "camox" / "strategies.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    config = two_gpus(tiny_data, tmp_path / "run")
    choose(config, TWO_PROCESSES, None, attempt=Attempts(ddp=measured(2), dp=measured(1)))

    assert identity(config, TWO_PROCESSES) in json.loads(path.read_text())


def test_no_place_to_remember(tiny_data: Path, tmp_path: Path) -> None:
    """Where there is no folder for caches the choice is made all the same."""
    (tmp_path / "cache").touch()
    attempts = Attempts(ddp=measured(2), dp=measured(1))

    assert choose(two_gpus(tiny_data, tmp_path / "run"), TWO_PROCESSES, None, attempt=attempts).strategy == "ddp"


@pytest.mark.parametrize(
    ("asked", "strategy", "devices", "count", "expected"),
    [
        ("auto", "ddp", 2, 2, True),
        ("auto", "ddp", 3, 3, True),
        ("auto", "ddp", 4, 4, False),
        ("auto", "ddp", 2, 4, False),  # two machines
        ("auto", "single", 1, 1, False),
        ("ddp", "ddp", 2, 2, False),
        ("dp", "dp", 2, 2, False),
    ],
)
def test_what_is_undecided(asked: Any, strategy: StrategyName, devices: int, count: int, expected: bool) -> None:
    """Only `auto` with two or three GPUs of one machine is open."""
    placement = Placement(strategy, tuple(torch.device("cuda", number) for number in range(devices)), count)

    assert is_undecided(RunConfig(strategy=asked), placement) is expected


def test_processes_on_the_cpu_are_decided() -> None:
    """They work by ddp."""
    assert not is_undecided(RunConfig(strategy="auto"), TWO_PROCESSES)


class Started:
    """Records what `start` does: processes launched, or training in this one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, choice: Choice) -> None:
        self.launched = 0
        self.handed_on: Choice | None = None
        self.trained: list[Choice | None] = []
        gpus = Placement("ddp", tuple(torch.device("cuda", number) for number in range(2)), 2)
        monkeypatch.setattr(decide, "place", lambda run, processes, sync_batchnorm: gpus)
        monkeypatch.setattr("camoxpert_cli.launch.workers.run_workers", self.run_workers)
        monkeypatch.setattr("camoxpert_cli.launch.auto_strategy.choose", lambda *arguments: choice)
        monkeypatch.setattr(autobatch, "is_measured", lambda device: False)
        monkeypatch.setattr("camoxpert_cli.engine.train.train", self.train)

    def train(self, plan: Plan, *arguments: Any, **rest: object) -> None:
        self.trained.append(plan.choice)

    def run_workers(self, arguments: object, processes: int, *, plan: dict[str, Any], **rest: object) -> Attempt:
        self.launched = processes
        self.handed_on = Plan.from_mapping(plan).choice
        outcome = Outcome(RunFolder(Path("run")), Config(), 1, 8, 2.0, generated=False)
        return Attempt(None, outcome=outcome.to_mapping())


def test_nothing_to_choose(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Synchronised BatchNorm is for ddp alone, which is taken without a trial, whatever was chosen before."""
    started = Started(monkeypatch, Choice("dp", {"dp": 9.0}, {}, "key"))
    start.start(tiny_run(tiny_data, tmp_path / "run", gpus=2, device="auto", sync_batchnorm=True))

    assert (started.launched, started.trained) == (2, [])


@pytest.mark.parametrize("strategy", ["dp", "ddp"])
def test_starting(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: StrategyName) -> None:
    """dp trains in this process, ddp in processes of their own, which are handed the choice."""
    choice = Choice(strategy, {strategy: 9.0}, {}, "key")
    started = Started(monkeypatch, choice)
    resolved: Resolved = tiny_run(tiny_data, tmp_path / "run", gpus=2, device="auto")
    start.start(resolved)

    if strategy == "dp":
        assert (started.launched, started.trained) == (0, [choice])
    else:
        assert (started.launched, started.trained) == (2, [])
        assert started.handed_on == choice
