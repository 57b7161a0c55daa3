"""One command, run again and again by a scheduler that kills it at random moments, until it exits with 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.at_start import at_start
from tests.helpers.batch_effects import HELD_STILL
from tests.helpers.cut_runs import CIRCUMSTANCES, SETTINGS, differing, history, steps
from tests.helpers.fake_scheduler import Job, run_until_done
from tests.helpers.processes import train_command
from tests.helpers.tiny_data import tiny_run

# Images per process and gradient accumulation of a command for so many processes: 6 per optimizer step, so that an
# epoch of 8 has a step of 6 and one of 2, in which one of three processes has no image.
BATCHES = {1: (3, 2), 2: (3, 1), 3: (1, 2)}
# How the images of a step are divided, which the number of processes decides.
DIVISION = {"batch_size", "stage2_batch_size", "accumulation_steps", "gpus"}
# Computed per batch, whatever its weight in the loss.
PER_BATCH = {"balance"}

Uncut = Callable[[int, bool], Path]


def job(data: Path, folder: Path, first: int, *, still: bool, save_every: str = "1") -> Job:
    """The command for `first` processes; for another number of them only that number changes in it."""
    batch, accumulation = BATCHES[first]
    chosen = {
        **SETTINGS,
        "continue": True,
        "batch_size": batch,
        "stage2_batch_size": batch,
        "accumulation_steps": accumulation,
        "save_every": save_every,
    }
    site = folder.with_name("site")
    environment = at_start(site, HELD_STILL) if still else {}
    return Job(lambda gpus: train_command(tiny_run(data, folder, **chosen, gpus=gpus)), folder, environment)


@pytest.fixture(scope="module")
def uncut(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Uncut:
    """The folder of a run that nobody kills, made when it is first asked for."""
    made: dict[tuple[int, bool], Path] = {}

    def make(count: int, still: bool) -> Path:
        if (count, still) not in made:
            folder = tmp_path_factory.mktemp("uncut") / "run"
            alone = job(tiny_data, folder, count, still=still)
            assert alone.run(count) == 0, alone.told
            made[count, still] = folder
        return made[count, still]

    return make


@pytest.mark.parametrize("seed", range(20))
def test_killed_and_run_again(tiny_data: Path, tmp_path: Path, uncut: Uncut, seed: int) -> None:
    """Twenty sequences of three to five kills each; the end is that of the run which nobody killed.

    Half of them stay on one, two or three processes: the same to the bit. The others change between these: every step
    has the same images, and the weights are those of one process to 1e-9, in float64 and without what is computed per
    batch, which are BatchNorm's statistics, dropout and the balance of experts.
    """
    draw = np.random.default_rng(seed)
    first, changes = seed // 2 % 3 + 1, bool(seed % 2)
    folder = tmp_path / "run"
    ours = job(tiny_data, folder, first, still=changes, save_every="1" if seed % 4 < 2 else "2")
    run_until_done(ours, first, (1, 2, 3) if changes else (first,), int(draw.integers(3, 6)), draw)
    theirs = uncut(1 if changes else first, changes)

    assert steps(folder) == steps(theirs), ours.told
    assert [row["epoch"] for row in history(folder)] == [1, 2, 3, 4], ours.told
    comparison: dict[str, Any] = {}
    if changes:
        comparison = {"ignored": CIRCUMSTANCES | DIVISION | PER_BATCH, "tolerance": 1e-9}
    assert differing(folder, theirs, **comparison) == [], ours.told
    assert (folder / "results.json").exists()
    assert list(folder.glob(".*")) == [], ours.told
