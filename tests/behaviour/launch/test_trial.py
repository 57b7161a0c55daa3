"""What a trial measures, in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from camoxpert_cli.data.layouts import find_data
from camoxpert_cli.engine.run import Run, assemble
from camoxpert_cli.engine.step import StepOutput, TrainingStep
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.engine.validation import validate
from camoxpert_cli.launch import trial as trial_module
from camoxpert_cli.launch.trial import Measurement, Trial, TrialData, measure
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.parallel.worker import JOB
from camoxpert_cli.parallel.world import World
from tests.helpers.replicas import use_replicas
from tests.helpers.tiny_data import tiny_run


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """How many images of each training step chose each expert of each layer (L, E)."""
    found: list[Tensor] = []
    honest = TrainingStep.forward

    def forward(step: TrainingStep, images: Tensor, masks: Tensor) -> StepOutput:
        output = honest(step, images, masks)
        found.extend(output.chosen)
        return output

    monkeypatch.setattr(TrainingStep, "forward", forward)
    return found


def measured(trial: Trial, folder: Path, monkeypatch: pytest.MonkeyPatch, world: World | None = None) -> Measurement:
    monkeypatch.setenv(JOB, str(folder / "job.json"))
    return measure(trial, world or World(), lambda: None)


def tiny_trial(data: Path, **settings: Any) -> Trial:
    """Of stage 2 with three images a batch, one step once."""
    config = tiny_run(data, data / "unused", num_experts=7, gpus=1, **settings).config
    return Trial(config, 2, None, steps=1, repeats=1)


def test_all_experts_work(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: list[Tensor]
) -> None:
    """Each step, on noise and on images, has images for every expert of every layer.

    Gradient checkpointing runs the layers twice. The EMA of the weights, which scores held-out images, is routed as
    well.
    """
    routes: list[Tensor] = []

    def look_and_validate(run: Run) -> Scores | Stop:
        for layer in run.state.scored_network.moe_layers:
            layer.register_forward_hook(lambda layer, inputs, output: routes.append(output[1].chosen))
        return validate(run)

    monkeypatch.setattr(trial_module, "validate", look_and_validate)
    data = TrialData(find_data([tiny_data]).train, tuple(range(8)), (8, 9, 10))
    measurement = measured(
        replace(tiny_trial(tiny_data, gradient_checkpointing=True), images=data), tmp_path, monkeypatch
    )

    assert min(measurement.compute + measurement.end_to_end) > 0
    assert len(chosen) > 4
    assert all(counts.shape == (4, 7) and counts.min() > 0 for counts in chosen)
    assert routes
    assert all(set(each.flatten().tolist()) == set(range(7)) for each in routes)


def test_all_experts_of_replicas_work(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: list[Tensor]
) -> None:
    """So has each replica of DataParallel."""

    def assemble_in_two(*arguments: Any) -> Run:
        run = assemble(*arguments)
        use_replicas(run, 2, monkeypatch)
        return run

    monkeypatch.setattr(trial_module, "assemble", assemble_in_two)
    measured(tiny_trial(tiny_data, stage2_batch_size=6, use_ema=False), tmp_path, monkeypatch)

    assert len(chosen) >= 2 * 4
    assert all(counts.sum() == 4 * 3 * 3 and counts.min() > 0 for counts in chosen)


def test_ranks_go_on_from_each_other(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: list[Tensor]
) -> None:
    """The images of the second of two ranks go on where those of the first end."""
    monkeypatch.setattr(World, "all_reduce", lambda world, tensor: tensor)
    monkeypatch.setattr(World, "all_reduce_max", lambda world, tensor: tensor)
    monkeypatch.setattr(World, "all_gather", lambda world, item: [item])
    monkeypatch.setattr(World, "broadcast", lambda world, item: item)
    config = tiny_run(tiny_data, tiny_data / "unused", num_experts=7, gpus=2, stage2_batch_size=2, use_ema=False).config
    measured(Trial(config, 2, None, steps=1, repeats=1), tmp_path, monkeypatch, World(1, 2, 1, 2))

    assert chosen
    assert all(torch.equal(counts, torch.tensor([[1.0, 1, 1, 1, 1, 0, 1]] * 4)) for counts in chosen)
