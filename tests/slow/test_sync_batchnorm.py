"""Synchronised BatchNorm through whole runs of two processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.engine.run import enter_phase, prepare
from camoxpert_cli.engine.train import begin, train_epoch
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World
from tests.helpers.batch_effects import train_without_dropout
from tests.helpers.gpus_on_cpu import place_on_gpus, run_sync_batchnorm
from tests.helpers.networks import small_network
from tests.helpers.plain_training import assert_same_training, train_plainly
from tests.helpers.ranks import in_ranks
from tests.helpers.tiny_data import TRAINING_IMAGES, tiny_run


def train_with_batch_norm(
    world: World, data: Path, folder: Path, cases: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """For each of `cases` what `train_plainly` gives, where nothing is dropped."""
    monkeypatch = pytest.MonkeyPatch()
    kernels = run_sync_batchnorm(monkeypatch)
    place_on_gpus(monkeypatch, world.size)
    CamoXpert.train = train_without_dropout  # type: ignore[assignment, method-assign]
    found = [train_plainly(world, data, folder / str(at), case) for at, case in enumerate(cases)]
    del kernels
    return found


def test_two_ranks_are_one_process(tiny_data: Path, tmp_path: Path) -> None:
    """Weights and statistics are those of one process with batches twice as large, through all stages, to 1e-9.

    Layers, collectives and groups are torch's, kernels those for the CPU. Without the setting all are far away.
    """
    sizes: list[tuple[int, dict[str, Any]]] = [
        (7, {"accumulation_steps": 2}),  # a step of batches of 2 + 2 and 1 + 2
        (10, {"gradient_checkpointing": True}),  # steps of 2 + 2, 2 + 2 and 1 + 1; the last two sum as they go back
        (5, {"accumulation_steps": 2, "gradient_checkpointing": True}),  # of 2 + 2 and 0 + 1: none for one rank
    ]
    common = [{"val_fraction": 1 - random_images / TRAINING_IMAGES, **settings} for random_images, settings in sizes]
    shared = [{**each, "batch_size": 2, "stage2_batch_size": 2, "gpus": 2} for each in common]
    alone = [{**each, "batch_size": 4, "stage2_batch_size": 4} for each in common]
    cases = [*({**each, "sync_batchnorm": True} for each in shared), shared[0]]
    first, second = in_ranks(2, train_with_batch_norm, tiny_data, tmp_path / "two", cases)
    (whole,) = in_ranks(1, train_with_batch_norm, tiny_data, tmp_path / "one", alone)
    without = max(abs(first[-1]["states"][-1][name] - value).max() for name, value in whole[0]["states"][-1].items())

    for case, *ranks, one in zip(sizes, first[:-1], second[:-1], whole, strict=True):
        assert_same_training(case, ranks, one)
    assert without > 1e-3


def train_really(world: World, data: Path, folder: Path) -> dict[str, Any]:
    """With nothing held still, in steps of 4 + 4 and of 1 image, then of 6 + 3: what each rank holds at the end."""
    monkeypatch = pytest.MonkeyPatch()
    kernels = run_sync_batchnorm(monkeypatch)
    place_on_gpus(monkeypatch, world.size)
    settings: dict[str, Any] = {
        **{"epochs": 3, "stage1_epochs": 1, "num_experts": 7, "gpus": 2, "sync_batchnorm": True},
        **{"val_fraction": 1 - 9 / TRAINING_IMAGES, "batch_size": 2, "stage2_batch_size": 3, "accumulation_steps": 2},
    }
    resolved = tiny_run(data, folder, **settings)
    run, _ = prepare(decide(resolved), None, world)
    begin(run, resolved.config, None)
    for phase in run.phases:
        enter_phase(run, phase)
        for epoch in range(phase.first, phase.end):
            train_epoch(run, phase, epoch)
            run.state.progress.samples = 0
    assert run.state.ema is not None
    assert run.state.optimizer is not None
    moments = [value for state in run.state.optimizer.state.values() for value in state.values()]
    del kernels
    return {
        "names": list(run.state.network.state_dict()),
        "held": [*run.state.network.state_dict().values(), *run.state.ema.network.state_dict().values(), *moments],
    }


def test_ranks_stay_the_same_to_the_bit(tiny_data: Path, tmp_path: Path) -> None:
    """Network, EMA, their statistics and the optimizer; what would be saved has the names it always has."""
    (tmp_path / "run").mkdir()
    first, second = in_ranks(2, train_really, tiny_data, tmp_path / "run")

    assert len(first["held"]) == len(second["held"]) > 100
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first["held"], second["held"], strict=True))
    assert first["names"] == second["names"] == list(small_network("test_resnet", 7).state_dict())
