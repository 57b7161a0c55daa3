"""One command, run again and again by a scheduler that kills it at random moments; the slow tests do it longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.helpers.cut_runs import history, steps
from tests.helpers.fake_scheduler import Job, run_until_done
from tests.helpers.processes import train_command
from tests.helpers.tiny_data import tiny_run


def test_killed_and_run_again(tiny_data: Path, tmp_path: Path) -> None:
    """Killed on two processes and left alone on one, it makes every step once, of 6 images or 2 on both.

    Another run of the command changes nothing.
    """
    folder = tmp_path / "run"
    chosen = {"continue": True, "batch_size": 3, "stage2_batch_size": 3, "num_experts": 1, "save_every": "1"}
    job = Job(lambda gpus: train_command(tiny_run(tiny_data, folder, **chosen, gpus=gpus)), folder)
    run_until_done(job, 2, (1, 2), 2, np.random.default_rng(4))

    assert steps(folder) == [(1, 6), (1, 8), (2, 6), (2, 8)], job.told
    assert [row["epoch"] for row in history(folder)] == [1, 2]
    assert list(folder.glob(".*")) == [], job.told
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert job.run(2) == 0, job.told
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert f"The run in {folder} is complete" in " ".join(job.told.split())
