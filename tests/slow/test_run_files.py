"""What a run leaves in its folder, where that takes several epochs to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.engine.train import train
from camoxpert_cli.launch.decide import decide
from tests.helpers.run_files import events
from tests.helpers.tiny_data import tiny_run


def test_expert_use_is_counted(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each image counts once an epoch for each expert it chose; experts that none chose are warned of, once.

    The first epoch begins with gates that have learned nothing, so nothing is said of it.
    """
    settings = tiny_run(tiny_data, tmp_path / "run", num_experts=7, epochs=4, stage1_epochs=4, lr=1e-6, save_every="1")
    folder = train(decide(settings)).folder
    said = [line for line in capsys.readouterr().err.splitlines() if "selected for fewer than 1%" in line]
    rows = events(folder, "epoch")
    for row in rows:
        assert [sum(layer) for layer in row["expert_use"]] == pytest.approx([3.0] * 4)
        assert all(8 * share == round(8 * share) for layer in row["expert_use"] for share in layer)
        assert row["dead_experts"] == [layer.count(0.0) for layer in row["expert_use"]]
        assert all(0 < entropy < 1 for entropy in row["routing_entropy"])
    dead = [sum(row["dead_experts"]) for row in rows]
    within, after = (
        read_checkpoint(path)["training"]["progress"]["experts_chosen"] for path in (folder.previous, folder.last)
    )

    # Saved after the last step of the last epoch, and after its end.
    assert [sum(layer) for layer in within] == [3 * 8] * 4
    assert after == []
    # With weights that hardly move, all of 8 images choose much the same experts.
    assert dead[0] > 0
    assert len(said) == 1
    assert f"{dead[1]} of 28 experts (" in said[0]
    assert "selected for fewer than 1% of the images in epoch 2" in " ".join(said[0].split())
