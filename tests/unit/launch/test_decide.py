"""What is decided before a run, and on what processes that torchrun started agree."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.checkpoints.format import Checkpoint
from camoxpert_cli.config.resolve import Resolved, resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.errors import CamoxError, UsageError
from camoxpert_cli.launch import autobatch, start
from camoxpert_cli.launch.decide import agree, decide
from camoxpert_cli.launch.workers import Attempt
from camoxpert_cli.parallel.device import Placement
from camoxpert_cli.parallel.world import World
from tests.helpers.thread_ranks import in_threads
from tests.helpers.tiny_data import tiny_run

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


def quickstart(folder: Path, **settings: Any) -> Resolved:
    return resolve("quickstart", {"run.checkpoint_dir": str(folder), **settings})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many devices were measured at a time; each holds one image."""
    found: list[int] = []

    def on_devices(devices: Sequence[torch.device]) -> autobatch.Measure:
        def measure(config: Config, limits: autobatch.Batches) -> list[autobatch.Batches]:
            found.append(len(devices))
            return [(1, 1)] * len(devices)

        return measure

    monkeypatch.setattr(autobatch, "is_measured", lambda device: True)
    monkeypatch.setattr(autobatch, "on_devices", on_devices)
    return found


def test_settings_lead_back_to_the_run(tmp_path: Path) -> None:
    """What is written down names the run's own folder, and not the checkpoint that this session begins with."""
    source = tmp_path / "elsewhere.pth"
    source.touch()
    plan = decide(quickstart(tmp_path / "run", **{"run.resume_from": str(source)}))

    assert plan.checkpoint == source
    assert plan.folder == tmp_path / "run"
    assert (plan.config.run.checkpoint_dir, plan.config.run.resume_from) == (str(tmp_path / "run"), None)


def test_a_new_run_is_fitted(tmp_path: Path) -> None:
    """The numbers of epochs of a new run are still to be chosen, those of a saved one are not; a limit have both."""
    resolved = resolve("quickstart", {"run.checkpoint_dir": str(tmp_path / "run"), "train.fit": "2x3m"})
    new = decide(resolved, began=100.0)
    saved = decide(resolved, Checkpoint(tmp_path / "elsewhere" / "last.pth", {}), began=100.0)
    unlimited = decide(quickstart(tmp_path / "run"), began=100.0)

    assert (new.fits_since, saved.fits_since, unlimited.fits_since) == (100.0, None, None)
    assert new.deadline == saved.deadline == Deadline(280.0, "the time limit of 3m (--fit 2x3m)")
    assert Plan.from_mapping(json.loads(json.dumps(new.to_mapping()))) == new


def test_memory_is_measured_before_a_run(tmp_path: Path, measured: list[int]) -> None:
    """By the process that the user started, once."""
    plan = decide(quickstart(tmp_path / "run"))

    assert measured == [1]
    assert plan.config.train.batch_size == 1


def test_torchrun_measures_later(tmp_path: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it started tries nothing until all are there to agree on it."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    plan = decide(quickstart(tmp_path / "run"))

    assert measured == []
    assert plan.config.train.batch_size == 12
    assert plan.placement.count == 2


def test_ranks_agree_on_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each measures its own card, and all take what every card holds: here 7 and 5 images at a time."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    resolved = quickstart(tmp_path / "run")
    cards = (torch.device("cpu"), torch.device("meta"))
    plan = replace(decide(resolved), placement=Placement("ddp", cards, 2))
    rooms = {"cpu": (99, 5), "meta": (7, 99)}
    monkeypatch.setattr(autobatch, "is_measured", lambda device: True)
    monkeypatch.setattr(autobatch, "on_devices", lambda devices: lambda config, limits: [rooms[devices[0].type]])

    def agreed(world: World) -> tuple[int, int, int]:
        config = agree(plan, resolved, world).config
        return config.train.batch_size, config.stage2_batch_size, config.train.accumulation_steps

    assert in_threads(2, agreed) == [(4, 4, 3)] * 2


def test_ranks_agree_on_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one's, whatever the time of day in the names that others chose."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    resolved = [quickstart(tmp_path / f"run{rank}") for rank in range(2)]
    plans = [decide(each) for each in resolved]

    def agreed(world: World) -> Plan:
        return agree(plans[world.rank], resolved[world.rank], world)

    for plan in in_threads(2, agreed):
        assert plan.folder == tmp_path / "run0"
        assert plan.config.run.checkpoint_dir == str(tmp_path / "run0")


def test_images_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are found from another folder too."""
    monkeypatch.chdir(tmp_path)
    config = decide(tiny_run(Path("images"), tmp_path, checkpoint_dir=None)).config

    assert config.data.dataset_path == (str(tmp_path / "images"),)
    assert str(config.run.checkpoint_dir).startswith("runs/train-")


def test_processes_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two take half of them each; all of them each would take turns."""
    seen: dict[str, Any] = {}

    def run_workers(arguments: object, processes: int, **rest: Any) -> Attempt:
        seen.update(rest, processes=processes)
        return Attempt(CamoxError("it failed"))

    monkeypatch.setattr("camoxpert_cli.launch.workers.run_workers", run_workers)
    monkeypatch.setattr("camoxpert_cli.data.cores.usable_cores", lambda: 8)
    with pytest.raises(CamoxError, match="it failed"):
        start.start(tiny_run(Path("images"), tmp_path / "run", gpus=2))

    assert (seen["processes"], seen["threads"]) == (2, 4)
    assert seen["run_folder"] == tmp_path / "run"


def test_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that cannot be used ends the command before anything is tried or written."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="--tracker wandb requires the wandb package"):
        decide(tiny_run(Path("/images"), tmp_path / "run", tracker="wandb"))

    assert not (tmp_path / "run").exists()
