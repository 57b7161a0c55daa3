"""Runs of several processes whose card gets too small on their way, and whole runs of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.engine import training_steps as steps_module
from camoxpert_cli.launch.start import start
from tests.helpers.cut_runs import steps
from tests.helpers.processes import run, train_command
from tests.helpers.small_card import have_room, networks_left, room, settings_of
from tests.helpers.tiny_data import tiny_run

# 8 images an epoch in steps of 4, saved after each; stage 2 from the second epoch on.
SETTINGS: dict[str, Any] = {"epochs": 2, "stage1_epochs": 1, "batch_size": 4, "stage2_batch_size": 4, "save_every": "1"}
UNCUT = [(epoch, samples) for epoch in (1, 2) for samples in (4, 8)]


def test_stage_2_does_not_fit(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stage 2 does not fit: half its batch does, from the last checkpoint, over the same images, none left out.

    The run that failed is gone before the next one takes memory.
    """
    left = networks_left(monkeypatch)
    fit_in_stage_1(monkeypatch, 3)
    folder = tmp_path / "run"
    start(tiny_run(tiny_data, folder, **SETTINGS))
    said = capsys.readouterr().err

    assert steps(folder) == UNCUT
    assert settings_of(folder) == (2, 2, 2, False)
    assert left == [0, 0]
    assert (
        f"Warning: the GPU ran out of memory in epoch 2; the last good weights are in {folder}/last.pth. "
        "Restarting from the last checkpoint, using batch sizes 2 and 2 (stages 1 and 2) with 2 accumulation steps, "
        "keeping the global batch sizes 4 and 4; if memory runs out again, the run stops\n"
    ) in said
    assert f"Resuming from {folder}/last.pth: 1 epoch complete" in said


def fit_in_stage_1(monkeypatch: pytest.MonkeyPatch, most_images: int) -> None:
    """Room for all until the backbone trains, then for so many."""
    honest = steps_module.backward

    def backward(run: Any, images: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if run.state.backbone_stages and len(images) > most_images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(run, images, *rest, **named)

    monkeypatch.setattr(steps_module, "backward", backward)


def test_one_image_at_a_time(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is left to halve, gradients are checkpointed."""
    have_room(monkeypatch, most_images=0, checkpointed=1)
    folder = tmp_path / "run"
    one = {"batch_size": 1, "stage2_batch_size": 1, "accumulation_steps": 4}
    start(tiny_run(tiny_data, folder, **{**SETTINGS, **one}))

    assert steps(folder) == UNCUT
    assert settings_of(folder) == (1, 1, 4, True)


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
        "Warning: restarting all 2 processes from the last checkpoint, using batch sizes 1 and 1 (stages 1 and 2) with "
        "2 accumulation steps, keeping the global batch sizes 4 and 4\n"
    ) in output
    assert output.count("restarting") == 1
    assert "1 epoch complete, 4 images into epoch 2" in output


def test_two_processes_end(tiny_data: Path, tmp_path: Path) -> None:
    """Where half the batch is too much as well, all ends, with one more message and the exit code of training."""
    folder = tmp_path / "run"
    two = {"gpus": 2, "batch_size": 4, "stage2_batch_size": 4}
    command = train_command(tiny_run(tiny_data, folder, **{**SETTINGS, **two}))
    code, output = run(command, **room(tmp_path / "card", most_images=1, measured=False, rank=0, calls=2))

    assert code == 6, output
    assert output.count("restarting") == 1
    assert output.count("ran out of memory") == 2
    assert "Traceback" not in output
    hint = "--set train.batch_size=1 --set train.stage2_batch_size=1 --set train.accumulation_steps=4"
    assert f"Try:   camox resume {folder} {hint}\n" in output


def test_two_processes_are_measured(tiny_data: Path, tmp_path: Path) -> None:
    """From the command line: what does not fit is found before training, and both processes train with what does."""
    folder = tmp_path / "run"
    two = {"gpus": 2, "batch_size": 2, "stage2_batch_size": 2}
    command = train_command(tiny_run(tiny_data, folder, **{**SETTINGS, **two}))
    code, output = run(command, **room(tmp_path / "card", most_images=1, measured=True))

    assert code == 0, output
    assert steps(folder) == UNCUT
    assert settings_of(folder) == (1, 1, 2, False)
    assert output.count("the requested batch sizes do not fit in the memory of") == 1
    assert "restarting" not in output


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
    assert message.startswith("Error: --batch-size auto measures GPU memory, but this run uses the CPU\n")
    assert code == 0, output
    # The defaults are 8 and 4 images at a time.
    assert settings_of(folder) == (8, 4, 2, False)
