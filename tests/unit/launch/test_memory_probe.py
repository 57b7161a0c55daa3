"""How batches that fit are looked for, with steps that take no memory and say that there is no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.launch import memory_probe
from camoxpert_cli.launch.memory_probe import largest_batches, largest_that, measure_memory
from camoxpert_cli.model.camoxpert import CamoXpert


class Card:
    """Steps on a card that holds so many images of a stage at a time; remembers what was tried."""

    def __init__(self, **room: int) -> None:
        self.room = room
        self.tried: list[tuple[int, int, int]] = []  # stage, batch size, stages of the backbone

    def __call__(
        self, config: Config, network: CamoXpert, ema: Ema | None, device: torch.device, stage: Stage, stages: int
    ) -> None:
        self.tried.append((stage.number, stage.batch_size, stages))
        if stage.batch_size > self.room.get(f"stage{stage.number}", 99):
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture(autouse=True)
def _no_experts_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_probe, "costliest", lambda network, *_: [[0, 1]] * len(network.moe_layers))


def small(**settings: object) -> Config:
    flags = {
        "model.backbone": "test_resnet",
        "model.num_experts": 2,
        "data.img_size": 64,
        "train.batch_size": 3,
        "train.stage2_batch_size": 2,
        "train.use_ema": False,
        **{f"train.{name}": value for name, value in settings.items()},
    }
    return resolve("kaggle-2xT4", flags).config


def peaks(config: Config, steps: Callable[..., None]) -> list[tuple[int, int, int | None]]:
    """Number, batch size and peak of each stage."""
    return [(stage.number, stage.batch_size, peak) for stage, peak in measure_memory(config, "cpu", steps).items()]


def test_each_stage_once() -> None:
    """At its own batch, and stage 2, however many steps unfreeze the backbone, where all of that trains."""
    both, second = Card(), Card()

    assert peaks(small(), both) == [(1, 3, 0), (2, 2, 0)]
    assert both.tried == [(1, 3, 0), (2, 2, 4)]
    assert peaks(small(skip_stage1=True), second) == [(2, 2, 0)]
    assert second.tried == [(2, 2, 4)]


def test_out_of_memory() -> None:
    """A stage that runs out of memory says so, and the next one is measured all the same."""
    assert peaks(small(), Card(stage1=2)) == [(1, 3, None), (2, 2, 0)]


def test_another_error() -> None:
    """What has nothing to do with memory is no answer about it."""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        largest_batches(small(), "cpu", (3, 1), fail)


def test_the_largest() -> None:
    """The largest that fits is found; what fits as it was asked for is tried once, and else in halves."""
    for limit in range(1, 40):
        for room in range(42):
            tried: list[int] = []

            def fits(size: int, room: int = room, tried: list[int] = tried) -> bool:
                tried.append(size)
                return size <= room

            assert largest_that(fits, limit) == min(room, limit)
            assert min(tried) >= 1
            assert len(tried) <= 1 + (0 if limit <= room else limit.bit_length())


def test_largest_batches() -> None:
    """Of each stage, up to its limit; a stage that does not train has room for all."""
    assert largest_batches(small(), "cpu", (9, 4), Card(stage1=5)) == [5, 4]
    assert largest_batches(small(skip_stage1=True), "cpu", (9, 3), Card(stage1=0, stage2=0)) == [9, 0]


def test_the_costliest_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory runs out before the steps, while experts are measured, the batch has no room either."""

    def measure(network: object, images: Tensor, dtype: object) -> list[list[int]]:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [[0, 1]] * 4

    monkeypatch.setattr(memory_probe, "costliest", measure)

    assert peaks(small(), Card()) == [(1, 3, None), (2, 2, 0)]
    assert largest_batches(small(), "cpu", (3, 3), Card()) == [2, 2]


def test_part_of_the_memory_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps must do with 92% of what is free, not of all; a card without room for the weights holds no image."""
    asked: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 20))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, device: asked.append(part))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory_probe, "_build", full)

    assert largest_batches(small(), "cuda:0", (3, 2)) == [0, 0]
    assert asked == [pytest.approx(0.46)]
