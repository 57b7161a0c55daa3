"""Several processes that train together make the steps of one process with all of their pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD

from camoxpert_cli.engine import run as run_module
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.train import begin, train_epoch
from camoxpert_cli.engine.world import World
from camoxpert_cli.model.camoxpert import CamoXpert
from tests.helpers.ranks import in_ranks
from tests.helpers.tiny_data import tiny_run

pytestmark = pytest.mark.training

# A stage change, then an unfreezing before each epoch of stage 2.
STAGES: dict[str, Any] = {"epochs": 4, "stage1_epochs": 1, "num_experts": 7, "use_ema": False, "warmup_epochs": 0}


def _hold_batches_still() -> None:
    """BatchNorm uses its running statistics and nothing is dropped, so that a picture does not see its batch."""
    original = CamoXpert.train

    def train_mode(self: CamoXpert, mode: bool = True) -> CamoXpert:
        original(self, mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.Dropout):
                module.eval()
        return self

    CamoXpert.train = train_mode  # type: ignore[method-assign]


def _in_plain_steps(run: Run) -> None:
    """Gradient descent in float64: Adam divides by the size of a gradient, which blows up the rounding of tiny ones."""
    run.step.double()
    groups: Any = run_module.__dict__["build_optimizer"]

    def plain(*arguments: Any, **settings: Any) -> SGD:
        settings["previous"] = None
        adam = groups(*arguments, **settings)
        kept = [{key: group[key] for key in ("params", "name", "lr_factor")} for group in adam.param_groups]
        return SGD(kept)

    run_module.__dict__["build_optimizer"] = plain


def train_plainly(world: World, data: Path, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Weights after each epoch, losses of each step, as NumPy arrays and numbers."""
    _hold_batches_still()
    train_module.CLIP_NORM = float("inf")
    resolved = tiny_run(data, folder, **STAGES, **settings, lr=1e-2, stage2_lr=1e-2, scheduler="none")
    run, _ = prepare(resolved, None, world)
    begin(run, resolved.config, None)
    _in_plain_steps(run)
    states = []
    for phase in run.phases:
        enter_phase(run, phase)
        for epoch in range(phase.first, phase.end):
            train_epoch(run, phase, epoch)
            run.progress.samples = 0
            states.append({name: value.clone().numpy() for name, value in run.network.state_dict().items()})
    log = run.folder.metrics
    rows = [json.loads(line) for line in log.read_text().splitlines()] if world.is_main else []
    return {"states": states, "rows": rows}


@pytest.mark.parametrize(
    ("pictures", "per_rank", "accumulation"),
    [
        (8, 2, 1),  # steps of 2 + 2
        (8, 2, 2),  # one step of two batches of 2 + 2
        (7, 2, 2),  # a batch of 1 + 2
        (5, 2, 1),  # a batch with a picture for one rank only
    ],
)
def test_two_ranks_are_one_process(
    tiny_data: Path, tmp_path: Path, pictures: int, per_rank: int, accumulation: int
) -> None:
    """Losses and weights are those of one process with batches twice as large, through all stages, to 1e-9."""
    common = {"val_fraction": 1 - pictures / 11, "accumulation_steps": accumulation}
    shared = {**common, "batch_size": per_rank, "stage2_batch_size": per_rank, "gpus": 2}
    alone = {**common, "batch_size": 2 * per_rank, "stage2_batch_size": 2 * per_rank}
    two = in_ranks(2, train_plainly, tiny_data, tmp_path / "two", shared)
    (one,) = in_ranks(1, train_plainly, tiny_data, tmp_path / "one", alone)

    moved = 0.0
    for at, state in enumerate(one["states"]):
        for name, value in state.items():
            largest = max(abs(value).max(), 1.0)
            assert abs(two[0]["states"][at][name] - value).max() <= 1e-9 * largest, name
            assert (two[0]["states"][at][name] == two[1]["states"][at][name]).all(), name
            moved = max(moved, abs(value - one["states"][0][name]).max())
    assert moved > 1e-3
    assert [row["samples"] for row in two[0]["rows"]] == [row["samples"] for row in one["rows"]]
    for ours, theirs in zip(two[0]["rows"], one["rows"], strict=True):
        for name in ("total", "bce", "iou", "edge", "deep", "balance", "gradient_norm"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-9, rel=1e-9)
