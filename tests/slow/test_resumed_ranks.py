"""Two processes that are stopped and resumed: the same bits as without."""

from __future__ import annotations

from pathlib import Path

from tests.behaviour.test_resumed_ranks import train_whole_and_cut
from tests.helpers.cut_runs import differing
from tests.helpers.ranks import in_ranks


def test_two_ranks_resumed(tiny_data: Path, tmp_path: Path) -> None:
    """Two add gradients in one order, whatever sums them; three do so by other means."""
    in_ranks(2, train_whole_and_cut, tiny_data, tmp_path)

    assert differing(tmp_path / "whole", tmp_path / "cut") == []
