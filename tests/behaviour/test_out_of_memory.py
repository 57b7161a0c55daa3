"""Runs whose card gets too small on their way: where they go on, and with what."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from camoxpert_cli.checkpoints.format import Checkpoint
from camoxpert_cli.config.batches import own_batches
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.engine import training_steps as steps_module
from camoxpert_cli.engine.out_of_memory import OutOfMemory, smaller
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.errors import TrainingError
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.launch.resume import resume
from camoxpert_cli.launch.start import _train, start
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder
from tests.helpers.compare import differences
from tests.helpers.cut_runs import steps
from tests.helpers.small_card import have_room, networks_left, settings_of
from tests.helpers.tiny_data import tiny_run

# 8 images in steps of 4, saved after each; stage 2 alone.
SETTINGS: dict[str, Any] = {"epochs": 1, "stage1_epochs": 0, "batch_size": 4, "stage2_batch_size": 4, "save_every": "1"}


UNCUT = [(1, 4), (1, 8)]


@pytest.mark.parametrize(
    ("batches", "stage", "expected"),
    [
        ((16, 12, 1), 1, (8, 6, 2)),
        ((16, 12, 1), 2, (8, 6, 2)),
        ((7, 3, 2), 2, (2, 1, 6)),  # 12 and 6 images a step, not 14 and 6: 7 steps of 1 and 2 are as far off
    ],
)
def test_smaller(batches: tuple[int, int, int], stage: int, expected: tuple[int, int, int]) -> None:
    """Half the batch of the stage that ran out, or less where halves are not whole, at the same images a step."""
    names = ("train.batch_size", "train.stage2_batch_size", "train.accumulation_steps")
    found = smaller(resolve(None, dict(zip(names, batches, strict=True))).config, stage)

    assert found is not None
    assert (*own_batches(found), found.train.accumulation_steps) == expected


def test_smaller_than_one_image() -> None:
    """One image gets gradient checkpointing; with that there is nothing smaller."""
    one = resolve(None, {"train.batch_size": 1}).config
    found = smaller(one, 1)

    assert found is not None
    assert found.model.gradient_checkpointing
    assert smaller(found, 1) is None


def gets_full(monkeypatch: pytest.MonkeyPatch, most_images: int, after: int) -> list[dict[str, Any]]:
    """Room for all in so many passes, and for so many images from then on.

    Returns a list that gets what the run has learned: where a pass does not fit, and at the first one that does then.
    """
    honest, passes = steps_module.backward, 0
    learned: list[dict[str, Any]] = []

    def backward(run: Any, images: torch.Tensor, *rest: Any, **named: Any) -> Any:
        nonlocal passes
        passes += 1
        is_full = passes > after and len(images) > most_images
        if is_full or len(learned) == 1:
            state = run.state
            parts = {"network": state.network, "ema": state.ema.network, "optimizer": state.optimizer}
            learned.append(copy.deepcopy({name: part.state_dict() for name, part in parts.items()}))
        if is_full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(run, images, *rest, **named)

    monkeypatch.setattr(steps_module, "backward", backward)
    return learned


def test_a_run_goes_on(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second step does not fit: half its batch does, from the last checkpoint, over the same images, none left out.

    It goes on with the weights, average and moments of the run that failed, which is gone before the next one takes
    memory.
    """
    left = networks_left(monkeypatch)
    learned = gets_full(monkeypatch, 3, after=1)
    folder = tmp_path / "run"
    start(tiny_run(tiny_data, folder, **{**SETTINGS, "batch_size": 8}))
    said = capsys.readouterr().err

    assert steps(folder) == UNCUT
    # Of stage 2, which it was in, half: and of stage 1 as much less.
    assert settings_of(folder) == (4, 2, 2, False)
    assert left == [0, 0]
    before, after = learned
    assert differences(after, before) == []
    assert before["optimizer"]["state"]
    assert (
        f"Warning: the GPU ran out of memory in epoch 1; the last good weights are in {folder}/last.pth. "
        "Restarting from the last checkpoint, using batch sizes 4 and 2 (stages 1 and 2) with 2 accumulation steps, "
        "keeping the global batch sizes 8 and 4; if memory runs out again, the run stops\n"
    ) in said
    assert f"Resuming from {folder}/last.pth: 0 epochs complete, 4 images into epoch 1" in said


def test_without_a_checkpoint(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins again, in its folder, and once: that half the batch is too much as well is the end."""
    gets_full(monkeypatch, 1, after=0)
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match="ran out of memory in epoch 1") as caught:
        start(tiny_run(tiny_data, folder, **SETTINGS))

    assert not (folder / "last.pth").exists()
    assert yaml.safe_load((folder / "config.yaml").read_text())["train"]["batch_size"] == 2
    assert "--batch-size" in caught.value.hint
    assert caught.value.exit_code == 6


def test_a_second_time_ends_it(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that goes on with smaller batches, which does."""
    gets_full(monkeypatch, 1, after=1)
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match="ran out of memory in epoch 1") as caught:
        start(tiny_run(tiny_data, folder, **SETTINGS))
    assert caught.value.exit_code == 6
    assert caught.value.hint == (
        f"camox resume {folder} --set train.batch_size=1 --set train.stage2_batch_size=1 "
        "--set train.accumulation_steps=4"
    )
    resume(folder, {}, caught.value.hint.split()[4::2])

    assert steps(folder) == UNCUT
    assert settings_of(folder) == (1, 1, 4, False)


def test_it_goes_on_from_its_own_last_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the checkpoint that it had gone on from, hours before; and with the same partners."""
    resolved = tiny_run(Path("images"), tmp_path)
    plan = replace(decide(resolved), checkpoint=tmp_path / "elsewhere" / "last.pth")
    (tmp_path / "last.pth").touch()
    seen: list[tuple[Plan, World, Checkpoint | None]] = []

    def train(plan: Plan, world: World, checkpoint: Checkpoint | None = None) -> str:
        seen.append((plan, world, checkpoint))
        if len(seen) == 1:
            raise OutOfMemory("it is full", RunFolder(tmp_path), plan.config, 1)
        return "trained"

    monkeypatch.setattr("camoxpert_cli.engine.train.train", train)
    world, checkpoint = World(), Checkpoint(tmp_path / "elsewhere" / "last.pth", {})
    outcome: object = _train(plan, world, checkpoint)

    assert outcome == "trained"
    (_, _, first), (again, partners, second) = seen
    assert (first, second) == (checkpoint, None)
    assert partners is world
    assert again.checkpoint == tmp_path
    assert (again.config.train.batch_size, again.config.train.accumulation_steps) == (2, 2)


def test_nothing_smaller(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that cannot do with less is not begun again, and the hint names what is left."""
    have_room(monkeypatch, most_images=0)
    one = {"batch_size": 1, "stage2_batch_size": 1, "gradient_checkpointing": True}
    with pytest.raises(TrainingError, match="ran out of memory in epoch 1") as caught:
        start(tiny_run(tiny_data, tmp_path / "run", **{**SETTINGS, **one}))

    assert "estarting" not in capsys.readouterr().err
    assert "--img-size" in caught.value.hint
    assert "--batch-size" not in caught.value.hint
