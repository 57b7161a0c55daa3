"""Choose the devices of a run and how they work together."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace

import torch

from camoxpert_cli import console
from camoxpert_cli.config.parse import parse_devices
from camoxpert_cli.config.schema import RunConfig
from camoxpert_cli.errors import DeviceError, UsageError
from camoxpert_cli.parallel.strategy import StrategyName, choose_strategy, processes_of
from camoxpert_cli.parallel.world import World


@dataclass(frozen=True)
class Placement:
    """The devices of a run that this process can use, and the run's strategy.

    That is at least one per process of this machine, or only this process's own if a scheduler shows each process a
    different GPU. `count` is the number of all devices that work together, over all machines.
    """

    strategy: StrategyName
    devices: tuple[torch.device, ...]
    count: int

    @property
    def processes(self) -> int:
        """The number of processes that share the work, over all machines."""
        return processes_of(self.strategy, self.count)


def place(run: RunConfig, processes: int = 1, *, sync_batchnorm: bool = False) -> Placement:
    """Return the placement for the settings; `processes` is the number started together, over all machines.

    Raises UsageError for contradictory settings and DeviceError if requested GPUs do not exist.
    """
    if processes > 1 and run.gpus not in (None, "all", processes):
        asked = f"{run.gpus} GPU{'' if run.gpus == 1 else 's'}"
        raise UsageError(
            f"{processes} processes were started, but a flag or the preset requests {asked}",
            f"--gpus {processes}, or start as many processes as GPUs",
        )
    devices = _cpu(run, processes) if run.device == "cpu" else _cuda(run, processes)
    count = processes if processes > 1 else len(devices)
    strategy = choose_strategy(run.strategy, devices, count, processes, sync_batchnorm=sync_batchnorm)
    return Placement(strategy, devices, count)


def with_count(run: RunConfig, placement: Placement) -> RunConfig:
    """Return the settings with the number of devices found, on which the global batch size depends."""
    return replace(run, gpus=placement.count) if placement.count > 1 or run.gpus is not None else run


def is_undecided(run: RunConfig, placement: Placement) -> bool:
    """Return whether trials have to choose the strategy: `auto` with two or three GPUs, all on this machine."""
    return (
        run.strategy == "auto"
        and placement.devices[0].type == "cuda"
        and 1 < placement.count == len(placement.devices) <= 3
    )


def own_device(placement: Placement, world: World) -> torch.device:
    """Return the device of this process. Raises UsageError or DeviceError if processes and devices do not match.

    Of several processes that see one GPU each, every one gets that GPU: see `refuse_shared_gpus`.
    """
    if placement.processes != world.size:
        raise UsageError(
            f"{world.size} process was started, but {placement.count} devices are requested",
            f"--gpus 1, or start {placement.count} processes",
        )
    if len(placement.devices) == 1:
        return placement.devices[0]
    if world.local_rank >= len(placement.devices):
        raise DeviceError(
            f"{world.local_size} processes were started on this machine, but it has only "
            f"{console.counted(len(placement.devices), 'GPU')} for them",
            f"start {console.counted(len(placement.devices), 'process', 'processes')}",
        )
    return placement.devices[world.local_rank]


def refuse_shared_gpus(device: torch.device, world: World) -> None:
    """Raise DeviceError, on every rank, if two ranks have the same physical GPU as `device`. Every rank must call this.

    Each process may see its GPU as cuda:0, so GPUs are told apart by their UUIDs.
    """
    own = None
    if device.type == "cuda":
        own = platform.node(), str(torch.cuda.get_device_properties(device).uuid)
    first: dict[tuple[str, str], int] = {}
    for rank, gpu in enumerate(world.all_gather(own)):
        if gpu is not None and (other := first.setdefault(gpu, rank)) != rank:
            raise DeviceError(
                f"ranks {other} and {rank} share one GPU of {gpu[0]}",
                "start as many processes as there are GPUs, or give each process its own with CUDA_VISIBLE_DEVICES "
                "(Slurm: --gpus-per-task=1); see camox guide several-machines",
            )


def choose_device(device: str) -> torch.device:
    """Return one device; `auto` uses a GPU if there is one. Raises DeviceError if CUDA is requested but missing."""
    return place(RunConfig(device=device, gpus=1 if device == "cuda" else None)).devices[0]  # type: ignore[arg-type]


def _cpu(run: RunConfig, processes: int) -> tuple[torch.device, ...]:
    if run.devices is not None or run.gpus == "all":
        asked = f"--devices {run.devices}" if run.devices is not None else "--gpus all"
        raise UsageError(f"{asked} selects GPUs, but this run is on the CPU", "--gpus 2 trains in two processes")
    return (torch.device("cpu"),) * (processes if processes > 1 else run.gpus or 1)


def _cuda(run: RunConfig, processes: int) -> tuple[torch.device, ...]:
    available = torch.cuda.device_count()
    if run.devices is not None:
        numbers = parse_devices(run.devices)
        if processes == 1 and run.gpus not in (None, "all", len(numbers)):
            count = console.counted(len(numbers), "GPU")
            raise UsageError(
                f"--devices {run.devices} selects {count}, but --gpus or the preset requests {run.gpus}",
                f"add --gpus {len(numbers)}, or list {run.gpus} device{'' if run.gpus == 1 else 's'}",
            )
    else:
        wanted = available if run.gpus == "all" or processes > 1 else run.gpus
        numbers = tuple(range(wanted if wanted is not None else min(1, available)))
    if available == 0 and (numbers or run.device == "cuda" or run.gpus == "all"):
        asked = f"{len(numbers)} GPUs were" if len(numbers) > 1 else "a GPU was"
        raise DeviceError(
            f"{asked} requested, but this machine has none",
            "camox doctor, which says why; on Kaggle, choose a GPU as accelerator; or use --device cpu",
        )
    if numbers and max(numbers) >= available:
        asked = (
            f"GPU {max(numbers)} was"
            if run.devices is not None
            else f"{console.counted(len(numbers), 'GPU')} {'was' if len(numbers) == 1 else 'were'}"
        )
        numbered = ", numbered from 0" if run.devices is not None else ""
        raise DeviceError(
            f"{asked} requested, but this machine has {available}{numbered}", _fewer(run, len(numbers), available)
        )
    if numbers:
        return tuple(torch.device("cuda", number) for number in numbers)
    return (torch.device("cpu"),) * max(1, processes)


def _fewer(run: RunConfig, wanted: int, available: int) -> str:
    """A hint for a run that requests GPUs which do not exist: flags that select existing ones."""
    if run.devices is None:
        return "--gpus all, or --gpus 1"
    count = min(wanted, available)
    flags = f"--devices {','.join(map(str, range(count)))}"
    return flags if run.gpus in (None, "all", count) else f"{flags} --gpus {count}"
