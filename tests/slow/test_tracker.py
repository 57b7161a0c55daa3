"""`--tracker wandb` with several processes, of which one logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.engine.test_tracker import track_resumed

pytest.importorskip("wandb", exc_type=ImportError)


def test_two_processes(tiny_data: Path, tmp_path: Path) -> None:
    """They log one run, as a single one does, also when they are stopped and resumed."""
    track_resumed(tiny_data, tmp_path, 2)
