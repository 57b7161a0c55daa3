"""Runs whose weights can be compared to 1e-9: in float64, by gradient descent, without clipping."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch.optim import SGD

from camoxpert_cli.engine import state as state_module
from camoxpert_cli.engine.optimizer import build_optimizer
from camoxpert_cli.engine.run import enter_phase, prepare
from camoxpert_cli.engine.train import begin, train_epoch
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.parallel.world import World
from tests.helpers.tiny_data import tiny_run

# A stage change, then an unfreezing before each epoch of stage 2.
STAGES: dict[str, Any] = {"epochs": 4, "stage1_epochs": 1, "num_experts": 7, "use_ema": False, "warmup_epochs": 0}


def train_plainly(world: World, data: Path, folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Weights after each epoch, losses of each step, as NumPy arrays and numbers; `case` are settings.

    For a process of its own: it leaves the package changed.
    """
    state_module.__dict__["build_optimizer"] = _plain
    resolved = tiny_run(data, folder, **{**STAGES, "lr": 1e-2, "stage2_lr": 1e-2, **case}, scheduler="none")
    run, _ = prepare(decide(resolved), None, world)
    run.clip_norm = math.inf
    begin(run, resolved.config, None)
    run.strategy.step.double()
    states = []
    for phase in run.phases:
        enter_phase(run, phase)
        for epoch in range(phase.first, phase.end):
            train_epoch(run, phase, epoch)
            run.state.progress.samples = 0
            states.append({name: value.cpu().clone().numpy() for name, value in run.state.network.state_dict().items()})
    log = run.folder.metrics
    rows = [json.loads(line) for line in log.read_text().splitlines()] if world.is_main else []
    return {"states": states, "rows": rows, "chosen": run.state.progress.experts_chosen}


def assert_same_training(case: object, ranks: Sequence[dict[str, Any]], one: dict[str, Any]) -> None:
    """The `ranks` made the steps of `one` process to 1e-9, and hold the same to the bit."""
    moved = 0.0
    for at, state in enumerate(one["states"]):
        for name, value in state.items():
            largest = max(abs(value).max(), 1.0)
            assert abs(ranks[0]["states"][at][name] - value).max() <= 1e-9 * largest, (case, name)
            assert all((ranks[0]["states"][at][name] == rank["states"][at][name]).all() for rank in ranks), (case, name)
            moved = max(moved, abs(value - one["states"][0][name]).max())
    assert moved > 1e-3
    assert all(rank["chosen"] == one["chosen"] for rank in ranks)
    assert [row["samples"] for row in ranks[0]["rows"]] == [row["samples"] for row in one["rows"]]
    for ours, theirs in zip(ranks[0]["rows"], one["rows"], strict=True):
        for name in ("total", "bce", "iou", "edge", "deep", "balance", "gradient_norm"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-9, rel=1e-9), case


def _plain(*arguments: Any, **settings: Any) -> SGD:
    """Gradient descent: Adam divides by the size of a gradient, which blows up the rounding of tiny ones."""
    settings["previous"] = None
    adam = build_optimizer(*arguments, **settings)
    return SGD([{key: group[key] for key in ("params", "name", "lr_factor")} for group in adam.param_groups])
