"""Runs on a machine whose time only passes as training, scoring and saving take it: always the same, and at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from camoxpert_cli.checkpoints.format import write_checkpoint
from camoxpert_cli.console import Advance
from camoxpert_cli.engine import run as run_module
from camoxpert_cli.engine import saving, training_steps
from camoxpert_cli.engine.background import Background
from camoxpert_cli.engine.clock import Clock
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.step import LossValues
from camoxpert_cli.engine.stopping import Stop, Stopping
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.evaluation.score import Scoring
from camoxpert_cli.launch.decide import decide
from tests.helpers.tiny_data import tiny_run

PER_IMAGE, PER_STAGE = 1.0, 0.5  # seconds to train on an image, and more of them for each backbone stage in training
PER_SCORE, PER_SAVE = 0.25, 0.5


@dataclass
class Machine:
    """The time in seconds since its start, and by what everything is slower than usual."""

    now: float = 0.0
    slowness: Callable[[float], float] = lambda now: 1.0

    def spend(self, seconds: float) -> None:
        self.now += seconds * self.slowness(self.now)


class OneAfterTheOther(Background[Any]):
    """Has jobs done before `start` returns: beside training, they would take the time of two at once."""

    def start(self, job: Callable[[], Any]) -> None:
        super().start(job)
        wait([self._outcome])


def on_machine(machine: Machine, monkeypatch: pytest.MonkeyPatch, *, learns: bool = False) -> None:
    """Let all runs that are prepared from now on take the machine's time; unless one `learns`, its steps do nothing."""
    backward, score = training_steps.backward, Clock.score

    def slow_backward(run: Run, images: Tensor, *others: Any, **more: Any) -> tuple[Tensor, Tensor]:
        machine.spend(len(images) * (PER_IMAGE + PER_STAGE * (run.state.backbone_stages or 0)))
        if learns:
            return backward(run, images, *others, **more)
        chosen = torch.ones(len(run.state.network.moe_layers), run.config.model.num_experts)
        return torch.ones(len(LossValues._fields), dtype=torch.float64), chosen

    def slow_score(clock: Clock, scoring: Scoring[Any], advance: Advance) -> Stop | None:
        def advance_slowly(images: int, note: Any) -> None:
            machine.spend(PER_SCORE * images)
            advance(images, note)

        return score(clock, scoring, advance_slowly)

    def slow_write(*arguments: Any) -> None:
        machine.spend(PER_SAVE)
        write_checkpoint(*arguments)

    def stopping(deadline: Deadline) -> Stopping:
        return Stopping(deadline, lambda: machine.now)

    monkeypatch.setattr(training_steps, "backward", slow_backward)
    monkeypatch.setattr(Clock, "score", slow_score)
    monkeypatch.setattr(saving, "write_checkpoint", slow_write)
    monkeypatch.setattr(saving, "Background", OneAfterTheOther)
    monkeypatch.setattr(run_module, "Stopping", stopping)


def fitted_plan(data: Path, folder: Path, fit: str, **settings: Any) -> Plan:
    """The plan of a tiny run that is fitted to its time, which starts now on a machine that has just been started."""
    resolved = tiny_run(data, folder, **settings)
    train = replace(resolved.config.train, fit=fit)
    return decide(replace(resolved, config=replace(resolved.config, train=train)), began=0.0)
