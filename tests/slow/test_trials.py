"""Trials and measurements of memory that really train, in processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from camoxpert_cli.errors import DeviceError
from camoxpert_cli.launch import auto_strategy, autobatch, decide
from camoxpert_cli.launch.auto_strategy import choose
from camoxpert_cli.launch.autobatch import on_devices
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_trial import run_trial
from camoxpert_cli.launch.trial import Measurement
from camoxpert_cli.parallel.device import Placement
from camoxpert_cli.parallel.world import World
from tests.behaviour.launch.test_autobatch import batches, holds, small
from tests.behaviour.launch.test_run_trial import tiny_trial
from tests.helpers.ranks import in_ranks
from tests.unit.launch.test_auto_strategy import TWO_PROCESSES, two_gpus


@pytest.mark.parametrize("gpus", [1, 2])
def test_measuring(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """Every part has a value for each repeat; summing gradients takes time where there is more than one process."""
    monkeypatch.chdir(tmp_path)
    outcome = run_trial(tiny_trial(tiny_data, gpus, num_workers=1), threads=1)

    assert isinstance(outcome, Measurement), outcome
    for rates in (outcome.compute, outcome.loader, outcome.end_to_end):
        assert len(rates) == 2
        assert min(rates) > 0
    assert outcome.data_wait is not None
    assert 0 <= outcome.data_wait < 1
    assert (outcome.communication == 0) == (gpus == 1)
    assert outcome.validation is not None
    assert outcome.validation > 0
    assert outcome.peak_memory_mib > 100
    assert outcome.workers == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_training(tiny_data: Path) -> None:
    """What camox itself refuses keeps its sentence, its hint and its exit code."""
    trial = tiny_trial(tiny_data, 1, precision="fp16")

    assert run_trial(trial, threads=1) == Failure(
        "precision fp16 needs a GPU, but this run is on the CPU",
        "--precision fp32, or with camox resume --set train.precision=fp32",
        5,
    )


def test_real_trials(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on the CPU are measured; dp, which has no place there, is excluded with its reason."""
    monkeypatch.setattr(auto_strategy, "_SECONDS", 0.1)
    choice = choose(two_gpus(tiny_data, tmp_path / "run", device="cpu"), TWO_PROCESSES, None)

    assert choice.strategy == "ddp"
    assert choice.images_per_s["ddp"] > 0
    assert "this run is on the CPU" in choice.excluded["dp"]


def test_in_processes_of_their_own() -> None:
    """Each device is measured by a process, and what was wrong there is told."""
    measured = on_devices([torch.device("cpu")] * 2)(small().config, (3, 2))
    wrong = on_devices([torch.device("cpu")])(small(precision="fp16").config, (3, 2))

    assert measured == [(3, 2), (3, 2)]
    assert isinstance(wrong[0], Failure)
    assert "fp16" in wrong[0].why
    assert wrong[0].exit_code == DeviceError.exit_code


def taken(world: World, rooms: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
    """What a rank under torchrun takes, whose own card holds its part of `rooms`."""
    autobatch.is_measured = lambda device: True
    autobatch.on_devices = lambda devices: holds(*rooms[world.rank])
    placement = Placement("ddp", (torch.device("cpu"),) * 2, 2)
    decide.__dict__["place"] = lambda run, processes, sync_batchnorm: placement
    resolved = small()
    return batches(decide.agree(decide.decide(resolved), resolved, world))


def test_ranks_agree() -> None:
    """Where nobody measured for all, each rank does for its own card, and all take the same."""
    assert in_ranks(2, taken, [(99, 4), (9, 99)]) == [(4, 3, 4), (4, 3, 4)]
