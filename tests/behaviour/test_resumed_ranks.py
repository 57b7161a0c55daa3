"""Several processes that are stopped and resumed: the same bits as without, whatever summed a step's gradients."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.engine import training_steps
from camoxpert_cli.engine.train import train
from camoxpert_cli.errors import Interrupted
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.launch.resume import settings_to_go_on
from camoxpert_cli.parallel.world import World
from tests.helpers.cut_runs import differing, steps
from tests.helpers.ranks import in_ranks
from tests.helpers.tiny_data import tiny_run


def train_whole_and_cut(world: World, data: Path, folder: Path) -> None:
    """A run of two epochs, and one that ends after the first step of its second epoch and goes on."""
    settings: dict[str, Any] = {"stage1_epochs": 2, "num_experts": 3, "batch_size": 1, "gpus": world.size}
    train(decide(tiny_run(data, folder / "whole", **settings)), world)
    honest, made = training_steps.optimizer_step, 0

    def step(*arguments: Any) -> float | None:
        nonlocal made
        made += 1
        if made == len(steps(folder / "whole")) // 2 + 1 and world.is_main:
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(*arguments)

    training_steps.__dict__["optimizer_step"] = step
    with pytest.raises(Interrupted, match=f"in epoch 2 of 2, {world.size} images? into it"):
        train(decide(tiny_run(data, folder / "cut", **settings)), world)
    world.require_all()  # rank 0 has written it
    checkpoint = find_checkpoint(folder / "cut")
    train(decide(settings_to_go_on(checkpoint, {}, ()), checkpoint), world, checkpoint)


def test_resumed(tiny_data: Path, tmp_path: Path) -> None:
    """Bitwise the run that was not stopped, in which the step after the stop sums gradients as it goes back.

    In the resumed run it sums them afterwards, for it is the first. A ring of three adds ranks in another order there.
    """
    in_ranks(3, train_whole_and_cut, tiny_data, tmp_path)

    assert differing(tmp_path / "whole", tmp_path / "cut") == []
