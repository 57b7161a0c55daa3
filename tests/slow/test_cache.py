"""Whole runs with a cache of resized images."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.engine.train import train
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.compare import differences
from tests.helpers.run_files import events, read_json
from tests.helpers.tiny_data import tiny_plan

CIRCUMSTANCES = {
    "seconds",
    "epoch_seconds",
    "time",
    "data_wait",
    "num_workers",
    "checkpoint_dir",
    "save_every",
    "cache",
}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_run_with_a_cache(tiny_data: Path, tmp_path: Path, plain_run: RunFolder, num_workers: int) -> None:
    """A run with a cache has the losses and weights of one without, to the last bit."""
    folder = train(
        tiny_plan(tiny_data, tmp_path / "run", cache=str(tmp_path / "cache"), num_workers=num_workers)
    ).folder

    assert len([*(tmp_path / "cache").iterdir()]) == 1
    assert len(read_json(folder.history)) == 2
    assert differences(read_json(folder.history), read_json(plain_run.history), CIRCUMSTANCES, "history") == []
    assert differences(events(folder, "step"), events(plain_run, "step"), CIRCUMSTANCES, "steps") == []
    for name in ("last.pth", "best_model.pth"):
        own, other = (read_checkpoint(each.path / name) for each in (folder, plain_run))
        assert differences(own, other, CIRCUMSTANCES, name) == []
