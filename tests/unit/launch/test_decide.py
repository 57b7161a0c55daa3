"""What is decided before a run's first step, and what its processes are started and started again with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.errors import CamoxError
from camoxpert_cli.launch import start
from camoxpert_cli.launch.decide import agree, decide
from camoxpert_cli.launch.workers import Attempt
from camoxpert_cli.parallel.world import World
from tests.helpers.tiny_data import tiny_run


def test_settings_lead_back_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are found from another folder too; the run's own folder is known, and the file it began with is not."""
    monkeypatch.chdir(tmp_path)
    config = decide(tiny_run(Path("images"), tmp_path, checkpoint_dir=None, resume_from="weights.pth")).config

    assert config.data.dataset_path == (str(tmp_path / "images"),)
    assert str(config.run.checkpoint_dir).startswith("runs/train-")
    assert config.run.resume_from is None


class SecondRank(World):
    """Of two that torchrun started, which hears what the first one says."""

    def broadcast(self, value: Any) -> Any:
        return Path("runs") / "of-the-first"


def test_ranks_of_torchrun_share_a_folder(tmp_path: Path) -> None:
    """Each of them named it after the second in which it started."""
    resolved = tiny_run(Path("images"), tmp_path, checkpoint_dir=None, gpus=2)
    plan = agree(decide(resolved), resolved, SecondRank(rank=1, size=2))

    assert plan.folder == Path("runs/of-the-first")
    assert plan.config.run.checkpoint_dir == "runs/of-the-first"


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
