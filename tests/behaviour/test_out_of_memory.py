"""Runs whose card gets too small on their way: where they go on, and with what."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.config.batches import own_batches
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.engine import run as run_module
from camoxpert_cli.engine import train as train_module
from camoxpert_cli.engine.build import build_network
from camoxpert_cli.engine.out_of_memory import smaller
from camoxpert_cli.errors import TrainingError
from camoxpert_cli.launch.resume import resume
from camoxpert_cli.launch.start import start
from tests.helpers.processes import run, train_command
from tests.helpers.small_card import have_room, room
from tests.helpers.tiny_data import tiny_run

# 8 images an epoch in steps of 4, saved after each; stage 2 from the second epoch on.
SETTINGS: dict[str, Any] = {"epochs": 2, "stage1_epochs": 1, "batch_size": 4, "stage2_batch_size": 4, "save_every": "1"}


def steps(folder: Path) -> list[tuple[int, int]]:
    """(epoch, samples) after each optimizer step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["epoch"], row["samples"]) for row in rows if row["event"] == "step"]


UNCUT = [(epoch, samples) for epoch in (1, 2) for samples in (4, 8)]


def settings_of(folder: Path) -> tuple[int, int, int, bool]:
    config = read_checkpoint(folder / "last.pth")["config"]
    train = config["train"]
    checkpointing = config["model"]["gradient_checkpointing"]
    return train["batch_size"], train["stage2_batch_size"], train["accumulation_steps"], checkpointing


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


def test_a_run_goes_on(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stage 2 does not fit: half its batch does, from the last checkpoint, over the same images, none left out.

    The run that failed is gone before the next one takes memory.
    """
    networks: list[weakref.ref[nn.Module]] = []
    left: list[int] = []
    honest = build_network

    def build(*arguments: Any, **rest: Any) -> Any:
        left.append(sum(each() is not None for each in networks))
        network = honest(*arguments, **rest)
        networks.append(weakref.ref(network))
        return network

    monkeypatch.setattr(run_module, "build_network", build)
    fit_in_stage_1(monkeypatch, 3)
    folder = tmp_path / "run"
    start(tiny_run(tiny_data, folder, **SETTINGS))
    said = capsys.readouterr().err

    assert steps(folder) == UNCUT
    assert settings_of(folder) == (2, 2, 2, False)
    assert left == [0, 0]
    assert (
        f"Warning: the GPU ran out of memory in epoch 2; the last good weights are in {folder}/last.pth. Training "
        "starts again from the last checkpoint with batches of 2 and 2 (stage 1 and 2) and 2 accumulation steps, which "
        "make the same 4 and 4 pictures a step; a second time ends it\n"
    ) in said
    assert f"Going on from {folder}/last.pth: 1 epochs are complete" in said


def fit_in_stage_1(monkeypatch: pytest.MonkeyPatch, most_images: int) -> None:
    """Room for all until the backbone trains, then for so many."""
    honest = train_module.backward

    def backward(run: Any, images: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if run.state.backbone_stages and len(images) > most_images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(run, images, *rest, **named)

    monkeypatch.setattr(train_module, "backward", backward)


def test_a_run_without_a_checkpoint(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins again, in its folder."""
    have_room(monkeypatch, most_images=2)
    folder = tmp_path / "run"
    start(tiny_run(tiny_data, folder, **SETTINGS))

    assert steps(folder) == UNCUT
    assert settings_of(folder) == (2, 2, 2, False)


@pytest.mark.slow
def test_one_image_at_a_time(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is left to halve, gradients are checkpointed."""
    have_room(monkeypatch, most_images=0, checkpointed=1)
    folder = tmp_path / "run"
    one = {"batch_size": 1, "stage2_batch_size": 1, "accumulation_steps": 4}
    start(tiny_run(tiny_data, folder, **{**SETTINGS, **one}))

    assert steps(folder) == UNCUT
    assert settings_of(folder) == (1, 1, 4, True)


def test_a_second_time_ends_it(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that goes on with smaller batches, which does."""
    fit_in_stage_1(monkeypatch, 1)
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match="ran out of memory in epoch 2") as caught:
        start(tiny_run(tiny_data, folder, **SETTINGS))
    assert caught.value.exit_code == 6
    assert caught.value.hint == (
        f"camox resume {folder} --set train.batch_size=1 --set train.stage2_batch_size=1 "
        "--set train.accumulation_steps=4"
    )
    resume(folder, {}, caught.value.hint.split()[4::2])

    assert steps(folder) == UNCUT
    assert settings_of(folder) == (1, 1, 4, False)


def test_nothing_smaller(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that cannot do with less is not begun again, and the hint names what is left."""
    have_room(monkeypatch, most_images=0)
    one = {"batch_size": 1, "stage2_batch_size": 1, "gradient_checkpointing": True}
    with pytest.raises(TrainingError, match="ran out of memory in epoch 1") as caught:
        start(tiny_run(tiny_data, tmp_path / "run", **{**SETTINGS, **one}))

    assert "starts again" not in capsys.readouterr().err
    assert "--img-size" in caught.value.hint
    assert "--batch-size" not in caught.value.hint


@pytest.mark.slow
def test_two_processes_go_on(tiny_data: Path, tmp_path: Path) -> None:
    """One of two runs out in the middle: both start again from the last checkpoint, with half the batches, once."""
    folder = tmp_path / "run"
    two = {"gpus": 2, "batch_size": 2, "stage2_batch_size": 2}
    command = train_command(tiny_run(tiny_data, folder, **{**SETTINGS, **two}))
    # The second epoch's second step.
    code, output = run(command, **room(tmp_path / "card", most_images=1, measured=False, rank=1, calls=4))

    assert code == 0, output
    assert steps(folder) == UNCUT
    assert settings_of(folder) == (1, 1, 2, False)
    assert "Error: rank 1: the GPU ran out of memory in epoch 2" in output
    assert (
        "Warning: all 2 processes start again from the last checkpoint with batches of 1 and 1 (stage 1 and 2) and 2 "
        "accumulation steps, which make the same 4 and 4 pictures a step\n"
    ) in output
    assert output.count("start again") == 1
    assert "1 epochs are complete, 4 pictures into the next" in output


@pytest.mark.slow
def test_two_processes_end(tiny_data: Path, tmp_path: Path) -> None:
    """Where half the batch is too much as well, all ends, with one more message and the exit code of training."""
    folder = tmp_path / "run"
    two = {"gpus": 2, "batch_size": 4, "stage2_batch_size": 4}
    command = train_command(tiny_run(tiny_data, folder, **{**SETTINGS, **two}))
    code, output = run(command, **room(tmp_path / "card", most_images=1, measured=False, rank=0, calls=2))

    assert code == 6, output
    assert output.count("start again") == 1
    assert output.count("ran out of memory") == 2
    assert "Traceback" not in output
    hint = "--set train.batch_size=1 --set train.stage2_batch_size=1 --set train.accumulation_steps=4"
    assert f"Try:   camox resume {folder} {hint}\n" in output


@pytest.mark.slow
def test_two_processes_are_measured(tiny_data: Path, tmp_path: Path) -> None:
    """From the command line: what does not fit is found before training, and both processes train with what does."""
    folder = tmp_path / "run"
    two = {"gpus": 2, "batch_size": 2, "stage2_batch_size": 2}
    command = train_command(tiny_run(tiny_data, folder, **{**SETTINGS, **two}))
    code, output = run(command, **room(tmp_path / "card", most_images=1, measured=True))

    assert code == 0, output
    assert steps(folder) == UNCUT
    assert settings_of(folder) == (1, 1, 2, False)
    assert output.count("memory does not hold the batches asked for") == 1
    assert "start again" not in output


@pytest.mark.slow
def test_auto_from_the_command_line(tiny_data: Path, tmp_path: Path) -> None:
    """The numbers found are the run's settings; on a CPU that is none of a test it is one sentence, exit code 2."""
    folder = tmp_path / "run"
    command = train_command(tiny_run(tiny_data, folder, **{**SETTINGS, "epochs": 1, "batch_size": 1}))
    command[command.index("--batch-size") + 1] = "auto"
    command[command.index("--stage2-batch-size") + 1] = "auto"
    command[command.index("--accumulation-steps") + 1] = "2"
    refused, message = run(command)
    code, output = run(command, **room(tmp_path / "card", most_images=8, measured=True))

    assert (refused, message.count("\n")) == (2, 2), message
    assert message.startswith("Error: --batch-size auto measures a GPU's memory, and this run is on the CPU\n")
    assert code == 0, output
    # The defaults are 8 and 4 images at a time.
    assert settings_of(folder) == (8, 4, 2, False)
