"""Which batches a run gets."""

from __future__ import annotations

from pathlib import Path

from camoxpert_cli.engine.build import open_data
from camoxpert_cli.engine.feed import Feed
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.tiny_data import tiny_run


def batches_of(data: Path, folder: Path, devices: int) -> list[list[int]]:
    """Sizes of the batches of a process with 8 training images: in an epoch of stage 1, then of stage 2."""
    config = tiny_run(data, folder).config
    found = open_data(config.data, 0, RunFolder(folder))
    feed = Feed(config, found, None, workers=0, devices=devices, pin_memory=False, world=World())
    return [feed.training(phase.stage, phase.first, 0)[1] for phase in build_phases(config)]


def test_each_stage_has_its_own_batches(tiny_data: Path, tmp_path: Path) -> None:
    """Those of stage 2 are of its size, 3, and not of stage 1's, 4, for which the loader was made."""
    assert batches_of(tiny_data, tmp_path / "run", devices=1) == [[4, 4], [3, 3, 2]]


def test_a_process_with_two_devices(tiny_data: Path, tmp_path: Path) -> None:
    """It reads the images of both, as DataParallel wants them."""
    assert batches_of(tiny_data, tmp_path / "run", devices=2) == [[8], [6, 2]]
