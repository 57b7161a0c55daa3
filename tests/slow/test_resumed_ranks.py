"""Three processes that are stopped and resumed: the same bits as without."""

from __future__ import annotations

from pathlib import Path

from tests.behaviour.test_resumed_ranks import train_whole_and_cut
from tests.helpers.cut_runs import differing
from tests.helpers.ranks import in_ranks


def test_three_ranks_resumed(tiny_data: Path, tmp_path: Path) -> None:
    """A ring of three adds gradients in another order while a step goes back than afterwards."""
    in_ranks(3, train_whole_and_cut, tiny_data, tmp_path)

    assert differing(tmp_path / "whole", tmp_path / "cut") == []
