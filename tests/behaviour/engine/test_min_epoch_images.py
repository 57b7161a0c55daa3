"""An epoch that goes over a small training set several times."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from camoxpert_cli.engine.run import prepare
from camoxpert_cli.engine.train import carry_out
from camoxpert_cli.launch.resume import resume
from tests.helpers.run_files import events
from tests.helpers.tiny_data import tiny_plan


def test_each_image_several_times(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As often as it takes, equally often, in another order and with another augmentation each time."""
    plan = tiny_plan(tiny_data, tmp_path / "run", min_epoch_images=20, epochs=1, stage1_epochs=1, batch_size=1)
    run, _ = prepare(plan)
    seen: list[Tensor] = []
    run.state.network.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].clone()) if module.training else None
    )
    outcome = carry_out(run, plan, None)
    log = capsys.readouterr().err
    data = run.data

    assert (len(data.train), len({*data.train}), data.repeats) == (24, 8, 3)
    assert all(data.train.count(pair) == 3 for pair in data.train)
    assert len(seen) == outcome.images == 24
    # Eight images of which each is the same only by chance, in three ways each.
    assert len({image.numpy().tobytes() for image in seen}) > 16
    assert "8 for training (3 times per epoch)" in log
    resumed = resume(tmp_path / "run", {"train.epochs": 2}, [])
    assert (resumed.epochs, resumed.images) == (2, 48)
    assert len(events(outcome.folder, "step")) == 24 + 8


def test_large_sets_are_not_repeated(tiny_data: Path, tmp_path: Path) -> None:
    """As many images as were asked for, or more."""
    run, _ = prepare(tiny_plan(tiny_data, tmp_path / "run", min_epoch_images=8))

    assert (len(run.data.train), run.data.repeats) == (8, 1)
