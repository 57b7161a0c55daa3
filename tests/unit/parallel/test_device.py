from __future__ import annotations

import platform
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from camoxpert_cli.config.schema import RunConfig
from camoxpert_cli.errors import CamoxError, DeviceError, UsageError
from camoxpert_cli.parallel.device import Placement, choose_device, own_device, place, refuse_shared_gpus, with_count
from camoxpert_cli.parallel.world import World

CPU = torch.device("cpu")


def gpu(number: int) -> torch.device:
    return torch.device("cuda", number)


@pytest.fixture(params=[0, 1, 2])
def gpus_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine with none, one or two GPUs."""
    count: int = request.param
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    return count


def test_auto(gpus_here: int) -> None:
    """Without a word about it the run takes the first GPU, or the CPU where there is none."""
    expected = gpu(0) if gpus_here else CPU

    assert choose_device("auto") == expected
    assert place(RunConfig()) == Placement("single", (expected,), 1)


def test_cpu(gpus_here: int) -> None:
    """The CPU can be had on every machine, and so can several processes on it."""
    assert choose_device("cpu") == CPU
    assert place(RunConfig(device="cpu", gpus=3)) == Placement("ddp", (CPU,) * 3, 3)


def test_cuda(gpus_here: int) -> None:
    """Asked for by name, a GPU is taken or missed; the CPU never takes its place."""
    if gpus_here:
        assert choose_device("cuda") == gpu(0)
    else:
        with pytest.raises(DeviceError, match="this machine has none"):
            choose_device("cuda")


@pytest.mark.parametrize(
    ("settings", "available", "expected"),
    [
        ({"gpus": 1}, 2, Placement("single", (gpu(0),), 1)),
        ({"gpus": 2}, 2, Placement("ddp", (gpu(0), gpu(1)), 2)),
        ({"gpus": "all"}, 4, Placement("ddp", (gpu(0), gpu(1), gpu(2), gpu(3)), 4)),
        ({"gpus": "all"}, 1, Placement("single", (gpu(0),), 1)),
        ({"devices": "0,2"}, 4, Placement("ddp", (gpu(0), gpu(2)), 2)),
        ({"devices": "1", "gpus": 1}, 2, Placement("single", (gpu(1),), 1)),
        ({"gpus": 2, "strategy": "dp"}, 2, Placement("dp", (gpu(0), gpu(1)), 2)),
        ({"gpus": 1, "strategy": "dp"}, 2, Placement("single", (gpu(0),), 1)),
        ({"gpus": 1, "strategy": "ddp"}, 2, Placement("single", (gpu(0),), 1)),
    ],
)
def test_several(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], available: int, expected: Placement
) -> None:
    """GPUs are taken by number of them, by their own numbers, or all; one alone is no team."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: available)

    assert place(RunConfig(**settings)) == expected


@pytest.mark.parametrize(
    ("settings", "available", "exit_code", "message"),
    [
        ({"gpus": 1}, 0, 5, "a GPU was requested, but this machine has none"),
        ({"gpus": 2}, 0, 5, "2 GPUs were requested, but this machine has none"),
        ({"gpus": 2}, 1, 5, "2 GPUs were requested, but this machine has 1"),
        ({"device": "cuda", "gpus": 8}, 2, 5, "8 GPUs were requested, but this machine has 2"),
        ({"device": "cuda"}, 0, 5, "a GPU was requested, but this machine has none"),
        ({"gpus": "all"}, 0, 5, "a GPU was requested, but this machine has none"),
        ({"devices": "0,3"}, 2, 5, "GPU 3 was requested, but this machine has 2, numbered from 0"),
        (
            {"devices": "0,1", "gpus": 1},
            2,
            2,
            "--devices 0,1 selects 2 GPUs, but --gpus or the preset requests 1",
        ),
        ({"device": "cpu", "devices": "0"}, 2, 2, "--devices 0 selects GPUs, but this run is on the CPU"),
        ({"device": "cpu", "gpus": "all"}, 2, 2, "--gpus all selects GPUs, but this run is on the CPU"),
        ({"gpus": 2, "strategy": "single"}, 2, 2, "strategy single cannot use 2 devices"),
        (
            {"device": "cpu", "strategy": "dp"},
            2,
            2,
            "strategy dp needs several GPUs, but this run is on the CPU",
        ),
    ],
)
def test_refusals(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], available: int, exit_code: int, message: str
) -> None:
    """What cannot be had ends with what was asked for and what to type; nothing else is taken instead."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
    with pytest.raises(CamoxError) as caught:
        place(RunConfig(**settings))

    assert caught.value.exit_code == exit_code
    assert caught.value.message == message
    assert caught.value.hint


def test_processes_that_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many processes as were started work together, over machines too; settings must not say otherwise."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert place(RunConfig(gpus=4), processes=4) == Placement("ddp", (gpu(0), gpu(1)), 4)
    assert place(RunConfig(device="cpu"), processes=2) == Placement("ddp", (CPU, CPU), 2)
    for settings in ({"gpus": 2}, {"strategy": "dp"}, {"strategy": "single"}):
        with pytest.raises(CamoxError) as caught:
            place(RunConfig(**settings), processes=4)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"gpus": 8}, "--gpus all, or --gpus 1"),
        ({"devices": "3"}, "--devices 0"),
        ({"devices": "0,3", "gpus": 2}, "--devices 0,1"),
        ({"devices": "1,2,3", "gpus": "all"}, "--devices 0,1"),
        ({"devices": "1,2,3", "gpus": 3}, "--devices 0,1 --gpus 2"),
    ],
)
def test_gpus_to_choose_instead(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], hint: str) -> None:
    """After GPUs that a machine does not have, the hint names some that it has, as many as were asked for."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError) as caught:
        place(RunConfig(**settings))

    assert caught.value.hint == hint


def test_processes_that_do_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine needs a GPU for each of its processes, and as many processes as devices were asked for."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    placement = place(RunConfig(devices="0,1"), processes=4)

    assert own_device(placement, World(3, 4, 1, 2)) == gpu(1)
    with pytest.raises(DeviceError, match="3 processes were started on this machine, but it has only 2 GPUs for them"):
        own_device(placement, World(2, 4, 2, 3))
    with pytest.raises(UsageError, match="1 process was started, but 2 devices are requested"):
        own_device(place(RunConfig(gpus=2)), World())
    assert place(RunConfig(), processes=1) == Placement("single", (gpu(0),), 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert place(RunConfig(), processes=2).count == 2  # a process on each of two machines with eight


@pytest.mark.parametrize("settings", [{}, {"gpus": "all"}, {"gpus": 4}, {"device": "cuda"}, {"devices": "0"}])
def test_each_process_sees_its_own_gpu(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    """As a scheduler has it with CUDA_VISIBLE_DEVICES: cuda:0 for each, on one machine, on two, or in pods."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    placement = place(RunConfig(**settings), processes=4)

    assert (placement.strategy, placement.processes, placement.count) == ("ddp", 4, 4)
    for local_size in (1, 2, 4):
        for rank in range(4):
            assert own_device(placement, World(rank, 4, rank % local_size, local_size)) == gpu(0)


@dataclass(frozen=True)
class Gathering(World):
    """A world whose other ranks have said what they have."""

    said: tuple[Any, ...] = ()

    def all_gather(self, item: Any) -> list[Any]:
        return [*self.said[: self.rank], item, *self.said[self.rank + 1 :]]


@pytest.mark.parametrize(
    ("said", "sharing"),
    [
        ((("a", "1"), ("a", "2"), ("b", "1")), None),
        ((("a", "2"), ("a", "2"), ("b", "1")), "ranks 0 and 1 share one GPU of a"),
        ((("a", "1"), ("a", "2"), ("a", "2")), "ranks 1 and 2 share one GPU of a"),
        ((None, None, None), None),
    ],
)
def test_a_gpu_for_two(monkeypatch: pytest.MonkeyPatch, said: tuple[Any, ...], sharing: str | None) -> None:
    """Each sees a cuda:0; the same card under two ranks is told by all of them. On the CPU all share what there is."""
    own = said[1]
    monkeypatch.setattr(platform, "node", lambda: own and own[0])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=own and own[1]))
    world = Gathering(1, 3, 1, 3, said=(said[0], None, said[2]))
    device = CPU if own is None else gpu(0)
    if sharing is None:
        refuse_shared_gpus(device, world)
    else:
        with pytest.raises(DeviceError, match=sharing) as caught:
            refuse_shared_gpus(device, world)
        assert "CUDA_VISIBLE_DEVICES" in caught.value.hint


def test_count_becomes_a_setting() -> None:
    """The number of devices that were found is written down, so that the images of a step can be kept elsewhere."""
    two = Placement("ddp", (gpu(0), gpu(1)), 2)

    assert with_count(RunConfig(gpus="all"), two).gpus == 2
    assert with_count(RunConfig(devices="0,1"), two).gpus == 2
    assert with_count(RunConfig(), Placement("single", (CPU,), 1)).gpus is None
