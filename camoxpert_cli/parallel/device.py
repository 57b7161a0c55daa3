"""Where a run takes place, and how its devices work together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from camoxpert_cli.config.parse import parse_devices
from camoxpert_cli.config.schema import RunConfig
from camoxpert_cli.errors import DeviceError, UsageError
from camoxpert_cli.parallel.strategy import StrategyName, choose_strategy, processes_of
from camoxpert_cli.parallel.world import World


@dataclass(frozen=True)
class Placement:
    """The devices of a run on this machine: at least one for each of its processes there.

    `count` are all devices that work together, over all machines.
    """

    strategy: StrategyName
    devices: tuple[torch.device, ...]
    count: int

    @property
    def processes(self) -> int:
        """How many processes share the work, over all machines."""
        return processes_of(self.strategy, self.count)


def place(run: RunConfig, processes: int = 1, *, sync_batchnorm: bool = False) -> Placement:
    """The placement that the settings ask for; `processes` are those this one was started with, on all machines.

    Raises UsageError for settings that contradict each other, DeviceError where GPUs that were asked for are not there.
    """
    if processes > 1 and run.gpus not in (None, "all", processes):
        raise UsageError(
            f"{processes} processes were started, and {run.gpus} GPUs are asked for by a flag or the preset",
            f"--gpus {processes}, or start as many processes as GPUs",
        )
    devices = _cpu(run, processes) if run.device == "cpu" else _cuda(run, processes)
    count = processes if processes > 1 else len(devices)
    strategy = choose_strategy(run.strategy, devices, count, processes, sync_batchnorm=sync_batchnorm)
    return Placement(strategy, devices, count)


def with_count(run: RunConfig, placement: Placement) -> RunConfig:
    """The settings with the number of devices that were found, on which the images of a step depend."""
    return replace(run, gpus=placement.count) if placement.count > 1 or run.gpus is not None else run


def is_undecided(run: RunConfig, placement: Placement) -> bool:
    """Whether trials have to choose the strategy: `auto`, with two or three GPUs that are all of this machine."""
    return (
        run.strategy == "auto"
        and placement.devices[0].type == "cuda"
        and 1 < placement.count == len(placement.devices) <= 3
    )


def own_device(placement: Placement, world: World) -> torch.device:
    """The device of this process. Raises UsageError or DeviceError where the processes do not match the devices."""
    if placement.processes != world.size:
        raise UsageError(
            f"{world.size} process was started, and {placement.count} devices are asked for",
            f"--gpus 1, or start {placement.count} processes",
        )
    if world.local_rank >= len(placement.devices):
        raise DeviceError(
            f"{world.local_size} processes were started on this machine, for {len(placement.devices)} GPUs",
            f"start {len(placement.devices)}",
        )
    return placement.devices[world.local_rank]


def choose_device(device: str) -> torch.device:
    """One device; `auto` takes a GPU where there is one. Raises DeviceError where CUDA is asked for and not there."""
    return place(RunConfig(device=device, gpus=1 if device == "cuda" else None)).devices[0]  # type: ignore[arg-type]


def _cpu(run: RunConfig, processes: int) -> tuple[torch.device, ...]:
    if run.devices is not None or run.gpus == "all":
        asked = f"--devices {run.devices}" if run.devices is not None else "--gpus all"
        raise UsageError(f"{asked} chooses GPUs, and this run is on the CPU", "--gpus 2 trains in two processes")
    return (torch.device("cpu"),) * (processes if processes > 1 else run.gpus or 1)


def _cuda(run: RunConfig, processes: int) -> tuple[torch.device, ...]:
    available = torch.cuda.device_count()
    if run.devices is not None:
        numbers = parse_devices(run.devices)
        if processes == 1 and run.gpus not in (None, "all", len(numbers)):
            count = f"{len(numbers)} GPU{'s' if len(numbers) > 1 else ''}"
            raise UsageError(
                f"--devices {run.devices} chooses {count}, and {run.gpus} are asked for by --gpus or the preset",
                f"--gpus {len(numbers)} beside it, or as many devices",
            )
    else:
        wanted = available if run.gpus == "all" or processes > 1 else run.gpus
        numbers = tuple(range(wanted if wanted is not None else min(1, available)))
    if numbers and max(numbers) >= available:
        asked = (
            f"GPU {max(numbers)} was"
            if run.devices is not None
            else f"{len(numbers)} GPU{'s were' if len(numbers) > 1 else ' was'}"
        )
        raise DeviceError(
            f"{asked} asked for, and this machine has {available or 'none'}",
            "--preset kaggle-1xT4, or --gpus 1"
            if available
            else "camox doctor says why; on Kaggle, choose a GPU as accelerator; --device cpu does without",
        )
    if numbers:
        return tuple(torch.device("cuda", number) for number in numbers)
    if run.device == "cuda" or run.gpus == "all":
        raise DeviceError(
            "a GPU was asked for, and this machine has none", "camox doctor says why; --device cpu does without"
        )
    return (torch.device("cpu"),) * max(1, processes)
