"""The CPU as a card that holds a training step of so many images and no more."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine import run as run_module
from camoxpert_cli.engine.build import build_network
from camoxpert_cli.engine.step import TrainingStep
from camoxpert_cli.launch import autobatch
from camoxpert_cli.launch.memory_probe import largest_batches
from tests.helpers.at_start import at_start

ROOM = "CAMOX_TEST_ROOM"

# What every process runs when it starts.
_SITE = """
from tests.helpers.small_card import install

install()
"""


def room(folder: Path, *, most_images: int, measured: bool, rank: int = 0, calls: int | None = None) -> dict[str, str]:
    """Environment of processes whose card holds `most_images`: all, or `rank` alone once it made so many `calls`.

    Before that there is room for all. Whether it is `measured` says whether training takes the device for a GPU.
    `folder` must not exist.
    """
    less = {"pictures": most_images, "measured": measured, "rank": rank, "calls": calls, "marker": str(folder / "less")}
    return {**at_start(folder, _SITE), ROOM: json.dumps(less)}


def install() -> None:
    """In a process of its own: have a step of too many images run out of memory, as ROOM says."""
    settings = json.loads(os.environ[ROOM])
    marker, calls = Path(settings["marker"]), 0
    honest = TrainingStep.forward

    def forward(step: TrainingStep, images: Tensor, masks: Tensor) -> Any:
        nonlocal calls
        calls += 1
        shrinks = os.environ.get("RANK", "0") == str(settings["rank"])
        if shrinks and calls == settings["calls"]:
            marker.touch()
        if len(images) > settings["pictures"] and (settings["calls"] is None or (shrinks and marker.exists())):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(step, images, masks)

    TrainingStep.forward = forward  # type: ignore[method-assign, assignment]
    if settings["measured"]:
        autobatch.is_measured = lambda device: True


def have_room(monkeypatch: pytest.MonkeyPatch, most_images: int, checkpointed: int | None = None) -> list[int]:
    """The same in this process, with more room where gradients are checkpointed; returns the sizes that were tried."""
    tried: list[int] = []
    honest = TrainingStep.forward

    def forward(step: TrainingStep, images: Tensor, masks: Tensor) -> Any:
        tried.append(len(images))
        held = checkpointed if checkpointed is not None and step.network.gradient_checkpointing else most_images
        if len(images) > held:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(step, images, masks)

    monkeypatch.setattr(TrainingStep, "forward", forward)
    return tried


def measure(config: Config, limits: tuple[int, int]) -> Sequence[tuple[int, int]]:
    """What `autobatch.on_devices` measures, of one device and in this process."""
    first, second = largest_batches(config, "cpu", limits)
    return [(first, second)]


def settings_of(folder: Path) -> tuple[int, int, int, bool]:
    """Batches of both stages, accumulation and gradient checkpointing of a run's last checkpoint."""
    config = read_checkpoint(folder / "last.pth")["config"]
    train = config["train"]
    checkpointing = config["model"]["gradient_checkpointing"]
    return train["batch_size"], train["stage2_batch_size"], train["accumulation_steps"], checkpointing


def networks_left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets a number with each network that is built: how many of those before it are still in memory."""
    networks: list[weakref.ref[nn.Module]] = []
    left: list[int] = []

    def build(*arguments: Any, **rest: Any) -> Any:
        left.append(sum(each() is not None for each in networks))
        network = build_network(*arguments, **rest)
        networks.append(weakref.ref(network))
        return network

    monkeypatch.setattr(run_module, "build_network", build)
    return left
