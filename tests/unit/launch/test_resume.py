"""What a run that goes on is asked to do, from settings in a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.checkpoints.format import Checkpoint, CheckpointContent, TrainingContent
from camoxpert_cli.config.resolve import resolve, to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.build import build_phases, rate_at
from camoxpert_cli.errors import UsageError
from camoxpert_cli.launch import resume
from camoxpert_cli.launch.resume import rehearse, settings_to_go_on

RUN: dict[str, Any] = {"train.batch_size": 8, "train.stage2_batch_size": 4, "train.accumulation_steps": 2}


def checkpoint(folder: Path, *, epoch: int = 0, samples: int = 0, **settings: Any) -> Checkpoint:
    """Of a quickstart with the settings in RUN, so many epochs and images on."""
    flags = {**RUN, **{name.replace("__", "."): value for name, value in settings.items()}}
    config = resolve("quickstart", flags).config
    progress = {"epoch": epoch, "samples": samples}
    training = TrainingContent(progress, 4, "", {}, {}, 0)
    content = CheckpointContent(
        *("test_resnet", 7, {"weight": torch.zeros(1)}, None, epoch, None, None, to_mapping(config), None, training)
    )
    (folder / "config.yaml").touch()
    return Checkpoint(folder / "last.pth", content.to_dict())


def batches(config: Config) -> tuple[int, ...]:
    train = config.train
    return train.batch_size, config.stage2_batch_size, train.accumulation_steps


@pytest.mark.parametrize(
    ("flags", "assignments", "expected"),
    [
        ({}, [], (8, 4, 2)),
        ({"run.gpus": "2"}, [], (8, 4, 1)),
        ({"run.gpus": "4"}, [], (4, 2, 1)),
        ({"train.batch_size": "4"}, [], (4, 2, 4)),
        ({"run.gpus": "2", "train.batch_size": "4"}, [], (4, 2, 2)),
        ({}, ["run.gpus=2"], (8, 4, 1)),
        ({}, ["train.batch_size=3"], (3, 4, 2)),
        ({"run.gpus": "2"}, ["train.batch_size = 3"], (3, 4, 2)),
    ],
)
def test_the_images_of_a_step_stay(
    tmp_path: Path, flags: dict[str, Any], assignments: list[str], expected: tuple[int, ...]
) -> None:
    """On another number of processes, and in other batches; one that is assigned makes another run."""
    config = settings_to_go_on(checkpoint(tmp_path), flags, assignments).config

    assert batches(config) == expected


def test_where_it_goes_on(tmp_path: Path) -> None:
    """In its own folder, and not from the checkpoint that an earlier session began with."""
    config = settings_to_go_on(checkpoint(tmp_path, run__resume_from="elsewhere.pth"), {}, []).config

    assert (config.run.checkpoint_dir, config.run.resume_from) == (str(tmp_path), None)


def test_epochs(tmp_path: Path) -> None:
    """As many as before, or more; fewer are refused."""
    for epochs in (10, 12):
        config = settings_to_go_on(checkpoint(tmp_path), {"train.epochs": str(epochs)}, []).config
        assert config.train.epochs == epochs
    with pytest.raises(UsageError, match="--epochs is 9, and the run has 10"):
        settings_to_go_on(checkpoint(tmp_path), {"train.epochs": "9"}, [])


@pytest.mark.parametrize(
    ("before", "flags", "expected"),
    [
        ({"data__images": ("a",), "data__masks": ("b",)}, {"data.dataset_path": ["d"]}, (("d",), (), ())),
        ({"data__dataset_path": ("d",)}, {"data.images": ["a"], "data.masks": ["b"]}, ((), ("a",), ("b",))),
    ],
)
def test_moved_images(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, Any],
    flags: dict[str, Any],
    expected: tuple[tuple[str, ...], ...],
) -> None:
    """Where they are now takes the place of where they were, however either was given."""
    monkeypatch.chdir(tmp_path)
    given = checkpoint(tmp_path, data__generated_pictures=0, **before)
    data = settings_to_go_on(given, flags, []).config.data

    names = [tuple(Path(path).name for path in paths) for paths in (data.dataset_path, data.images, data.masks)]
    assert tuple(names) == expected


@pytest.mark.parametrize(("samples", "step"), [(0, 0), (32, 2), (33, 3)])
def test_the_next_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int, step: int) -> None:
    """A dry run names the rate of the step that comes next, of 16 images, in the middle of an epoch too."""
    settings = {"train__accumulation_steps": 1, "train__batch_size": 8, "train__stage2_batch_size": 8, "run__gpus": 2}
    found = checkpoint(tmp_path, samples=samples, **settings)
    monkeypatch.setattr(resume, "find_checkpoint", lambda source: found)
    (line,) = [line for line in rehearse(tmp_path, {}, []) if line.startswith("Next")]
    config = settings_to_go_on(found, {}, []).config
    rates = [f"{rate_at(config, build_phases(config)[0].stage, 400, 0, at):.3g}" for at in range(5)]

    assert len(set(rates)) == 5
    assert line.endswith(f"epoch 1 of 10, stage 2, learning rate {rates[step]}")
