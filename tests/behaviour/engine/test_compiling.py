"""`--compile` over whole runs: torch's own tracing, with a backend that runs what was traced."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint
from camoxpert_cli.engine import compiled_parts, compiling, train
from camoxpert_cli.engine.compile_phase import compile_first, consider_compiling, describe_compiling
from camoxpert_cli.engine.compiled_parts import CompiledParts
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.step import LossValues
from camoxpert_cli.engine.stopping import Stopping
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.engine.train import carry_out, train_epoch
from camoxpert_cli.engine.training_steps import TrainedStep
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.strategy import Dp
from camoxpert_cli.parallel.world import World
from tests.behaviour.engine.test_compiled_parts import Backend
from tests.helpers.cut_runs import SETTINGS, differing, steps
from tests.helpers.processes import run as run_command
from tests.helpers.processes import train_command
from tests.helpers.steered_runs import run_in_hand
from tests.helpers.timed_runs import PER_IMAGE, Machine, on_machine
from tests.helpers.tiny_data import tiny_plan, tiny_run

LOSSES = LossValues(1.0, 0.2, 0.2, 0.2, 0.2, 0.2)
Asked = Literal["auto", "on", "off"]
# Two steps of two batches each.
ONE_PHASE: dict[str, Any] = {"epochs": 1, "stage1_epochs": 1, "warmup_epochs": 0}


def few(network: CamoXpert) -> list[Any]:
    return [network.decoder_blocks[0]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile one part, and no machine code."""
    monkeypatch.setattr(compiled_parts, "compiled_modules", few)
    monkeypatch.setattr(compiling, "CompiledParts", TracedParts)


class TracedParts(CompiledParts):
    """Counts how often it was started, and how often what it compiled was called."""

    def __init__(self, step: Any, workers: int = 1) -> None:
        self.backend = Backend()
        super().__init__(step, workers, self.backend.compiler)
        self.batches: list[int] = []

    def start(self, batch: int, side: int, device: torch.device) -> str:
        self.batches.append(batch)
        return super().start(batch, side, device)


def trained(data: Path, folder: Path, checkpoint: Checkpoint | None = None, **settings: Any) -> Run:
    if checkpoint is not None:
        settings["resume_from"] = str(checkpoint.path)
    plan = tiny_plan(data, folder, **SETTINGS | settings)
    run, checkpoint = prepare(plan, checkpoint)
    carry_out(run, plan, checkpoint)
    return run


def batches(run: Run) -> list[int]:
    assert isinstance(run.compiling.parts, TracedParts)
    return run.compiling.parts.batches


def backend_of(run: Run) -> Backend:
    assert isinstance(run.compiling.parts, TracedParts)
    return run.compiling.parts.backend


def execution_in(folder: Path) -> str:
    training = Checkpoint(folder / "last.pth", read_checkpoint(folder / "last.pth")).training
    assert training is not None
    assert training.computed_with is not None
    return training.computed_with["execution"]


def test_compiled_phase(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It compiles before the first step, computes each batch by what it compiled, and resumes bitwise identically.

    tests/slow compares a run of several phases with one that compiles nothing.
    """
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run = trained(tiny_data, whole, compile="on", **ONE_PHASE)
    said = capsys.readouterr().err

    assert batches(run) == [2]
    assert (backend_of(run).graphs, backend_of(run).calls) == (1, 1 + 4)  # of a batch of noise, and of each batch
    assert said.count("Compiled backbone and decoder in ") == 1
    assert execution_in(whole) == "compiled"

    stop_after(3, tiny_data, cut, **ONE_PHASE)
    saved = Checkpoint(cut / "last.pth", read_checkpoint(cut / "last.pth"))
    capsys.readouterr()
    trained(tiny_data, cut, saved, compile="on", **ONE_PHASE)

    assert "The execution was" not in capsys.readouterr().err
    assert steps(cut) == steps(whole)
    assert differing(whole, cut) == []


def stop_after(count: int, data: Path, folder: Path, **settings: Any) -> None:
    """Stop a compiled run after so many forward passes in training, with that for which it compiles."""
    plan = tiny_plan(data, folder, **SETTINGS | settings, compile="on")
    run, _ = prepare(plan)
    left, ticks = [count], itertools.count()

    def clock() -> float:
        return float(next(ticks)) if left[0] > 0 else 1e12

    def limit(module: Any, inputs: Any, output: Any) -> None:
        if run.state.network.training and run.compiling.parts.are_compiled and torch.is_grad_enabled():
            left[0] -= 1

    run.clock.stopping = Stopping(Deadline(1e11, "a limit"), clock)
    run.strategy.step.register_forward_hook(limit)
    carry_out(run, plan, None)


class Watched:
    """A run with `--compile auto` as on a GPU, whose steps take what is told; nothing is computed."""

    def __init__(self, data: Path, folder: Path, *, failure: str = "", cost: float = 60.0, epochs: int = 10**6) -> None:
        self.run = run_in_hand(data, folder, epochs=epochs, stage1_epochs=epochs // 2)
        self.time, self.cost, self.failure = 0.0, cost, failure
        self.run.clock.stopping = Stopping(Deadline(), lambda: self.time)
        self.run.compiling.asked = "auto"
        self.parts = self.run.compiling.parts
        self.parts.start = self.start  # type: ignore[method-assign]
        self.compiled = 0
        compile_first(self.run, self.phase)

    @property
    def phase(self) -> Any:
        assert self.run.phase is not None
        return self.run.phase

    def start(self, batch: int, side: int, device: torch.device) -> str:
        self.time += self.cost
        self.compiled += 1
        if not self.failure:
            self.parts._parts = [object()]  # type: ignore[list-item]
            self.parts.stop = lambda: self.parts._parts.clear()  # type: ignore[method-assign]
        return self.failure

    def steps(self, seconds: float, count: int = 13, images: int = 4) -> float:
        spent = 0.0
        for number in range(count):
            self.time += seconds
            step = TrainedStep(number, images, LOSSES, 1e-3, 1.0)
            spent += consider_compiling(self.run, self.phase, step, seconds)
        return spent

    @property
    def execution(self) -> str:
        return self.run.saver.computed_with["execution"]


def test_auto_keeps_what_is_faster(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After 13 whole eager steps it compiles, after 13 more it says what that gained; the next phase knows the cost."""
    watched = Watched(tiny_data, tmp_path / "run")
    capsys.readouterr()

    assert watched.steps(9.0, 50, images=1) == 0  # the last batches of epochs
    assert watched.steps(0.2, 12) == 0
    assert watched.steps(0.2, 1) == pytest.approx(60)
    assert watched.execution == "compiled"
    watched.steps(0.1)

    said = capsys.readouterr().err
    assert "Compiling backbone and decoder: steps take 200 ms, and " in said
    assert "Compiled in 1m: 100 ms per step instead of 200 ms (2.00x), which saves about " in said
    assert watched.run.compiling.parts.are_compiled
    watched.steps(5.0, 50)
    assert watched.compiled == 1
    enter_phase(watched.run, watched.run.phases[1])
    compile_first(watched.run, watched.phase)
    assert (watched.run.compiling.parts.are_compiled, watched.execution) == (False, "eager")
    assert watched.run.compiling.experience.pays_from == pytest.approx(240)
    watched.steps(0.2, images=3)
    assert watched.compiled == 2


def test_auto_drops_what_is_not_faster(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two per cent are not enough; no other phase tries again."""
    watched = Watched(tiny_data, tmp_path / "run")
    watched.steps(0.2)
    watched.steps(0.196)

    assert "196 ms per step instead of 200 ms (1.02x), which is not faster: training continues without\n" in (
        capsys.readouterr().err.replace("\n      ", " ")
    )
    assert (watched.run.compiling.parts.are_compiled, watched.execution) == (False, "eager")
    enter_phase(watched.run, watched.run.phases[1])
    compile_first(watched.run, watched.phase)
    watched.steps(0.2, 30, images=3)
    assert watched.compiled == 1


@pytest.mark.parametrize("limit", ["phase", "deadline"])
def test_auto_in_a_short_session(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    """Where less than half an hour remains, of the phase or until the deadline, it says so and leaves it."""
    watched = Watched(tiny_data, tmp_path / "run", epochs=20 if limit == "phase" else 10**6)
    if limit == "deadline":
        watched.run.clock.stopping.deadline = Deadline(1799 + 13 * 0.2, "a limit")
    watched.steps(0.2, 100)

    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Not compiled: ") == 1
    assert "of training remain in this phase, and compiling, which takes about 3m, pays from 30m on" in said
    assert watched.compiled == 0


def test_auto_that_cannot_compile(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and no more attempts."""
    watched = Watched(tiny_data, tmp_path / "run", failure="out of kernels")
    watched.steps(0.2, 60)

    assert capsys.readouterr().err.count("cannot be compiled: out of kernels") == 1
    assert (watched.compiled, watched.execution) == (1, "eager")


def test_no_time_to_compile(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--compile on`, too, a time limit comes first."""
    watched = Watched(tiny_data, tmp_path / "run")
    compiling_of = watched.run.compiling
    compiling_of.asked, compiling_of.kind = "on", None
    watched.run.clock.stopping.deadline = Deadline(300.0, "a limit")
    assert compile_first(watched.run, watched.phase) == 0

    said = " ".join(capsys.readouterr().err.split())
    assert "too short for compiling, which takes about 3m: this phase is trained without" in said
    assert watched.compiled == 0
    watched.run.clock.stopping.deadline = Deadline(1000.0, "a limit")
    compiling_of.kind = None
    assert compile_first(watched.run, watched.phase) == pytest.approx(60)


def test_what_excludes_compiling(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the CPU auto need not try; DataParallel and --deterministic on GPUs exclude it; a compiler may be missing.

    What the user asked for, and what could be installed, is a warning.
    """

    run = run_in_hand(tiny_data, tmp_path / "run")
    capsys.readouterr()

    def line(asked: Asked, strategy: Any = None, *, deterministic: bool = False) -> str:
        train = replace(run.config.train, compile=asked, deterministic=deterministic)
        config = replace(run.config, train=train)
        strategy = strategy or run.strategy
        run.compiling = compiling.may_compile(config, strategy, run.strategy.step, run.world)  # type: ignore[arg-type]
        return describe_compiling(run)

    class OnGpu:
        can_compile, sync_batchnorm, device = True, False, torch.device("cuda", 0)

    class Parallel(OnGpu):
        can_compile, name = Dp.can_compile, Dp.name

    class Synchronised(OnGpu):
        sync_batchnorm = True

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(compiling, "missing_for_gpu", lambda capability: "")
    assert line("off", OnGpu()) == line("auto") == ""
    assert line("on") == "before each phase"
    assert line("auto", OnGpu()) == "auto: decided in the first steps of each phase"
    assert line("auto", Parallel()) == "no: strategy dp copies the network in every step"
    assert line("auto", Synchronised()).startswith("no: --sync-batchnorm exchanges statistics")
    assert "--deterministic excludes" in line("auto", OnGpu(), deterministic=True)
    assert line("on", deterministic=True) == "before each phase"
    assert "Warning" not in capsys.readouterr().err
    assert line("on", Parallel()) == line("on", OnGpu(), deterministic=True) == ""
    monkeypatch.setenv("CXX", "/nonexistent")
    assert line("on") == ""
    monkeypatch.setattr(compiling, "missing_for_gpu", lambda capability: "no Triton")
    assert line("auto", OnGpu()) == ""
    said = capsys.readouterr().err.splitlines()
    assert [each.removeprefix("Warning: training steps are not compiled: ")[:30] for each in said] == [
        "strategy dp copies the network",
        "it chooses GPU kernels by timi",
        "CXX is /nonexistent, and there",
        "no Triton",
    ]


def test_compiling_is_no_step(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time belongs to the epoch, but neither to a step, which the reserve would keep, nor to the pace of a fit."""
    machine, noted = Machine(), Noted()
    on_machine(machine, monkeypatch)
    run = run_in_hand(tiny_data, tmp_path / "run", epochs=9, stage1_epochs=9, batch_size=2)
    run.save_every = None
    costs = iter([0.0, 0.0, 1000.0, 0.0])

    def consider(*_: Any) -> float:
        cost = next(costs)
        machine.spend(cost)
        return cost

    monkeypatch.setattr(train, "consider_compiling", consider)
    run.fitting = noted  # type: ignore[assignment]
    train_epoch(run, run.phases[0], 0)

    assert noted.seconds == [8 * PER_IMAGE]
    assert run.clock.reserve.step == 2 * PER_IMAGE
    assert run.reporter.throughput.images_per_s(run.phases[0]) == pytest.approx(1 / PER_IMAGE)
    assert run.state.progress.epoch_seconds == 8 * PER_IMAGE + 1000


class Noted:
    """Stands for the fit of a run with another session to come: what it was told."""

    budget = SimpleNamespace(sessions=2)

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def note_training(self, kind: Any, seconds: float, images: int, now: float) -> None:
        self.seconds.append(seconds)


class OtherFails(World):
    """Another rank reports that it cannot compile."""

    def all_gather(self, item: Any) -> list[Any]:
        return [item, "no compiler on rank 1"] if item == "" else [item]


def test_all_ranks_compile_or_none(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rank that could compile does not, if another cannot."""
    watched = Watched(tiny_data, tmp_path / "run")
    watched.run.world = OtherFails()
    watched.steps(0.2, 60)

    assert "the network cannot be compiled: no compiler on rank 1; " in capsys.readouterr().err
    assert (watched.compiled, watched.execution) == (1, "eager")
    assert not watched.run.compiling.parts.are_compiled


def test_without_a_compiler(tiny_data: Path, tmp_path: Path) -> None:
    """A process that finds no compiler says so in one sentence, and trains."""
    command = train_command(tiny_run(tiny_data, tmp_path / "run", compile="on", epochs=1, stage1_epochs=1))
    code, output = run_command(command, CXX="/nonexistent")

    assert code == 0, output
    warning = "Warning: training steps are not compiled: CXX is /nonexistent, and there is no such program\n"
    assert output.count(warning) == output.count("compiled") == 1
