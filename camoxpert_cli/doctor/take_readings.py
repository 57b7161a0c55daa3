"""Take all readings of a machine: in parallel where they do not disturb each other, each with a timeout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.data.cores import usable_cores
from camoxpert_cli.doctor.finding import Question
from camoxpert_cli.doctor.readings import (
    Driver,
    Gpu,
    GpuTrial,
    Network,
    Peers,
    Readings,
    StageMemory,
    TeamTrial,
    Torch,
)
from camoxpert_cli.doctor.system import (
    on_kaggle,
    read_environment,
    read_job_limit,
    read_packages,
    read_ram,
    read_space,
)
from camoxpert_cli.launch.processes import Failure, ending_them
from camoxpert_cli.launch.run_probe import ask, ask_together, run_together
from camoxpert_cli.parallel.toolchain import missing_for_cpu, missing_for_gpu
from camoxpert_cli.parallel.worker import ONE_MACHINE
from camoxpert_cli.temporary import temporary_folder

Answer = TypeVar("Answer")

_PROBES = "camoxpert_cli.doctor.probes"

# Seconds. Importing torch from a cold network disk can take a minute, and the first step on a GPU creates its context.
_DRIVER, _INTERNET, _SOFTWARE, _GPU, _TEAM, _RECIPE = 30, 10, 180, 180, 180, 600
# Processes that import torch at the same time.
_AT_ONCE = 4
NO_PEERS = {"NCCL_P2P_DISABLE": "1"}


def take_readings(question: Question, tell: Callable[[str], None]) -> Readings:
    """Take all readings of this machine; what fails is returned as a `Failure`, not raised.

    Builds the network of the question's config and, if it has a preset and GPUs work, trains it for a few steps.
    `tell` is called with progress lines.
    """
    settings = json.dumps(to_mapping(question.config))
    with ThreadPoolExecutor(_AT_ONCE) as pool, ending_them(pool):
        tell("Checking the driver, torch, packages and network ...")
        torch_answer = pool.submit(ask, _PROBES, "torch_build", seconds=_SOFTWARE)
        imports = pool.submit(ask, _PROBES, "imports", seconds=_SOFTWARE)
        network = pool.submit(ask, _PROBES, "network", settings, seconds=_SOFTWARE)
        internet = pool.submit(ask, _PROBES, "internet", str(_INTERNET), seconds=_INTERNET + _DRIVER)
        driver = pool.submit(_read_driver)
        readings = Readings(
            driver=driver.result(),
            torch=_as(_torch, torch_answer),
            imports=_as(dict, imports),
            network=_as(lambda answer: Network(**answer), network),
            internet=_as(lambda answer: str(answer["host"]), internet),
            cores=usable_cores(),
            ram=read_ram(),
            shared_memory=read_space(Path("/dev/shm")),
            disk=read_space(Path.cwd()),
            folder=str(Path.cwd()),
            packages=read_packages(),
            environment=read_environment(),
            kaggle=on_kaggle(),
            job_limit=read_job_limit(),
        )
        missing = [missing_for_gpu(each.capability) for each in readings.seen] or [missing_for_cpu()]
        readings = replace(readings, compiler=next(filter(None, missing), ""))
        if readings.seen:
            tell("Testing each GPU ...")
            trials = [
                pool.submit(ask, _PROBES, "gpu", f"cuda:{number}", seconds=_GPU) for number in range(len(readings.seen))
            ]
            readings = replace(readings, gpus=tuple(_as(lambda answer: GpuTrial(**answer), each) for each in trials))
    working = readings.working
    if len(working) > 1:
        readings = _read_team(readings, [f"cuda:{number}" for number in working], tell)
    if question.preset is not None and question.needs_gpu and (cards := question.cards(readings)):
        tell("Training each stage of the preset for two steps ...")
        smallest = min(cards, key=lambda number: readings.seen[number].memory)
        readings = replace(readings, recipe=_read_recipe(f"cuda:{smallest}", settings))
    return readings


def _read_team(readings: Readings, devices: Sequence[str], tell: Callable[[str], None]) -> Readings:
    tell("Testing copies between the GPUs ...")
    numbers = ",".join(map(str, readings.working))
    peers = _or_failure(
        lambda answer: Peers(answer["pairs"], answer["direct"], tuple(answer["wrong"])),
        ask(_PROBES, "peers", numbers, seconds=_TEAM),
    )
    tell("Testing dp (DataParallel) on all GPUs ...")
    names = ",".join(devices)
    data_parallel = _or_failure(_team_trial, ask(_PROBES, "data_parallel", names, seconds=_TEAM))
    tell("Testing ddp (one process per GPU) on all GPUs ...")
    ddp = read_ddp(devices, _TEAM)
    without_peers = None
    if isinstance(ddp, Failure):
        tell("Testing ddp without peer access between the GPUs ...")
        without_peers = read_ddp(devices, _TEAM, NO_PEERS)
    return replace(readings, peers=peers, data_parallel=data_parallel, ddp=ddp, ddp_without_peers=without_peers)


def read_ddp(
    devices: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> TeamTrial | Failure:
    """Run the ddp probe with one process per device; `devices` are torch names such as cuda:0, or cpu repeated."""
    with temporary_folder() as folder:
        probes = [("ddp", str(rank), ",".join(devices), f"{folder}/store") for rank in range(len(devices))]
        variables = {**ONE_MACHINE, **(environment or {})}
        return _or_failure(_team_trial, ask_together(_PROBES, probes, seconds=seconds, environment=variables))


def _read_recipe(device: str, settings: str) -> tuple[StageMemory, ...] | Failure:
    return _or_failure(
        lambda answer: tuple(StageMemory(**each) for each in answer["stages"]),
        ask(_PROBES, "recipe", settings, device, seconds=_RECIPE),
    )


def _read_driver() -> Driver | Failure:
    command = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    (output,) = run_together([command], seconds=_DRIVER)
    if isinstance(output, Failure):
        return output
    rows = [line.split(",", 1) for line in output.strip().splitlines() if "," in line]
    if not rows:
        return Failure("nvidia-smi lists no GPU")
    return Driver(rows[0][0].strip(), tuple(name.strip() for _, name in rows))


def _torch(answer: dict[str, Any]) -> Torch:
    gpus = [
        Gpu(each["name"], each["memory"], (each["capability"][0], each["capability"][1]), each["multiprocessors"])
        for each in answer["gpus"]
    ]
    return Torch(
        answer["version"], answer["cuda"], tuple(answer["architectures"]), answer["complaint"], gpus=tuple(gpus)
    )


def _team_trial(answer: dict[str, Any]) -> TeamTrial:
    return TeamTrial(answer["difference"], answer["bandwidth"])


def _as(make: Callable[[dict[str, Any]], Answer], asked: Future[dict[str, Any] | Failure]) -> Answer | Failure:
    return _or_failure(make, asked.result())


def _or_failure(make: Callable[[dict[str, Any]], Answer], answer: dict[str, Any] | Failure) -> Answer | Failure:
    return answer if isinstance(answer, Failure) else make(answer)
