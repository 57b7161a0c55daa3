"""Processes of which a scheduler shows each another GPU, and only that."""

from __future__ import annotations

from pathlib import Path

from tests.behaviour.launch.test_visible_gpus import together, train
from tests.helpers.cut_runs import steps


def test_a_gpu_each(tiny_data: Path, tmp_path: Path) -> None:
    """They train together, though each of them has the number of only one GPU."""
    code, output = together(train(tiny_data, tmp_path / "run"), tmp_path, "01")

    assert code == 0, output
    assert "ddp: DistributedDataParallel, one process per device" in output
    assert steps(tmp_path / "run") == [(1, 4), (1, 8)]
