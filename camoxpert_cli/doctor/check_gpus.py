"""Judge the readings of the driver, torch and each GPU."""

from __future__ import annotations

import re

from camoxpert_cli import console
from camoxpert_cli.doctor.finding import Finding, Question, Status
from camoxpert_cli.doctor.readings import Driver, Gpu, GpuTrial, Readings, Torch
from camoxpert_cli.launch.processes import Failure

# Oldest driver for each major version of CUDA: NVIDIA's "CUDA Toolkit Release Notes", table on minor version
# compatibility.
_OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
# The oldest release that camox supports is built for the most GPUs and drivers; its package indexes:
_RELEASE = "torch==2.10.0 torchvision==0.25.0"
_INDEX = "--index-url https://download.pytorch.org/whl"
CPU_COMMAND = "camox train --preset quickstart"
KAGGLE_CHOICE = "choose GPU T4 x2 as the accelerator in the notebook settings (this restarts the session)"
# Fraction of its memory that an otherwise idle GPU has free; the probe itself uses a few percent.
_FREE = 0.9
_FAULTY = "restart the session; if it fails again, the GPU or its driver is faulty"


def gpu_findings(readings: Readings, question: Question) -> list[Finding]:
    """Return findings on the driver, the torch build and each GPU."""
    return [
        _driver(readings, question),
        _torch(readings, question),
        *_cards(readings, question),
    ]


def supported(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Return whether a build has kernels for a GPU: binaries for its generation, or PTX that it can compile."""
    major, minor = capability
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        digits = re.match(r"\d+", number)
        if digits is None:
            continue
        version = int(digits[0])
        if version <= 10 * major + minor and (kind == "compute" or version // 10 == major):
            return True
    return False


def driver_too_old(readings: Readings) -> bool:
    return (needed := _needed_driver(readings)) is not None and _driver_major(readings) < needed


def _needed_driver(readings: Readings) -> int | None:
    """Major version of the oldest driver for this build; None without a driver or without a CUDA build."""
    if isinstance(readings.driver, Failure) or isinstance(readings.torch, Failure) or readings.torch.cuda is None:
        return None
    return _OLDEST_DRIVER.get(int(readings.torch.cuda.split(".")[0]))


def _driver_major(readings: Readings) -> int:
    assert isinstance(readings.driver, Driver)
    digits = re.match(r"\d+", readings.driver.version)
    return int(digits[0]) if digits else 0


def _driver(readings: Readings, question: Question) -> Finding:
    ran = "nvidia-smi"
    driver = readings.driver
    if isinstance(driver, Failure):
        if readings.seen:
            return Finding("driver", "ok", ran, f"{driver.why}, but torch sees GPUs")
        return Finding("driver", "skipped", ran, driver.why)
    result = f"{driver.version}, {console.counted(len(driver.cards), 'GPU')}"
    if not readings.seen and driver_too_old(readings):
        assert isinstance(readings.torch, Torch)
        needed = _needed_driver(readings)
        result += f"; torch is built with CUDA {readings.torch.cuda}, which needs driver {needed} or newer"
        advice = f"install driver {needed} or newer"
        command = ""
        if _driver_major(readings) >= _OLDEST_DRIVER[12]:
            advice += ", or a torch build for this driver"
            command = f"pip install {_RELEASE} {_INDEX}/cu128"
        return Finding("driver", _unless_cpu(question), ran, result, advice, command)
    return Finding("driver", "ok", ran, result)


def _torch(readings: Readings, question: Question) -> Finding:
    ran = "import torch"
    build = readings.torch
    if isinstance(build, Failure):
        return Finding(
            "torch", "problem", ran, build.why, "reinstall it", "pip install --force-reinstall torch torchvision"
        )
    if build.cuda is None:
        result = f"{build.version}, built without CUDA"
        if isinstance(readings.driver, Driver) and question.needs_gpu:
            old = _driver_major(readings) < _OLDEST_DRIVER[13]
            index = f"{_INDEX}/{'cu128' if old else 'cu130'}"
            return Finding("torch", "problem", ran, result, "install a CUDA build", f"pip install {_RELEASE} {index}")
        return Finding("torch", "ok", ran, result)
    built_for = ", ".join(build.architectures)
    return Finding("torch", "ok", ran, f"{build.version}, CUDA {build.cuda}, built for {built_for}")


def _cards(readings: Readings, question: Question) -> list[Finding]:
    if not readings.seen:
        return [_no_card(readings, question)]
    return [
        _card(number, card, trial, readings, question)
        for number, (card, trial) in enumerate(zip(readings.seen, readings.gpus, strict=True))
    ]


def _no_card(readings: Readings, question: Question) -> Finding:
    ran = "torch.cuda.device_count()"
    build = readings.torch
    if not question.needs_gpu:
        return Finding("GPUs", "ok", ran, f"none; {question.preset} does not need one")
    if isinstance(build, Failure) or driver_too_old(readings):
        return Finding("GPUs", "skipped", ran, "not tested: fix the problems above first")
    if isinstance(readings.driver, Driver):
        if build.cuda is None:
            return Finding("GPUs", "skipped", ran, "not tested: fix the problems above first")
        if "CUDA_VISIBLE_DEVICES" in readings.environment:
            return Finding("GPUs", "skipped", ran, "none; see the environment variables below")
        result = (
            f"none, although the driver lists {console.counted(len(readings.driver.cards), 'GPU')}: {build.complaint}"
        )
        return Finding("GPUs", "problem", ran, result, "restart the session or the machine")
    if readings.kaggle:
        return Finding("GPUs", "problem", ran, "none: this session has no accelerator", KAGGLE_CHOICE)
    return Finding(
        "GPUs",
        "problem",
        ran,
        "none",
        "all built-in presets except quickstart need an NVIDIA GPU; to train on the CPU, run",
        CPU_COMMAND,
    )


def _card(number: int, card: Gpu, trial: GpuTrial | Failure, readings: Readings, question: Question) -> Finding:
    name = f"GPU {number}"
    dtype = "native bf16" if card.native_bf16 else "no native bf16 (uses fp16)"
    what = (
        f"{card.name}, {console.byte_size(card.memory)}, compute capability {'.'.join(map(str, card.capability))}, "
        f"{card.multiprocessors} multiprocessors, {dtype}"
    )
    # The other GPUs can train without it.
    broken: Status = "warning" if readings.working else _unless_cpu(question)
    if isinstance(trial, Failure):
        return Finding(
            name, broken, "one kernel", f"{what}; {trial.why}", _without(number, readings) or "restart the session"
        )
    if trial.kernel:
        return Finding(name, broken, "one kernel", f"{what}; {trial.kernel}", *_no_kernel(number, card, readings))
    ran = f"a convolution in {trial.dtype}, forward and backward"
    if trial.convolution:
        advice = _without(number, readings) or _FAULTY
        return Finding(name, broken, ran, f"{what}; {trial.convolution}", advice)
    if trial.free < _FREE * card.memory:
        result = f"{what}, only {console.byte_size(trial.free)} free"
        return Finding(name, "warning", ran, result, "another program uses the rest; find it with", "nvidia-smi")
    return Finding(name, "ok", ran, f"{what}, {console.byte_size(trial.free)} free")


def _no_kernel(number: int, card: Gpu, readings: Readings) -> tuple[str, str]:
    """Advice and command for a GPU on which no kernel runs."""
    build = readings.torch
    assert isinstance(build, Torch)
    if supported(card.capability, build.architectures):
        return _without(number, readings) or _FAULTY, ""
    if readings.kaggle:
        return f"this torch build has no kernels for this GPU: {KAGGLE_CHOICE}", ""
    if card.capability >= (5, 0) and card.capability < (7, 5):
        return (
            "this torch build has no kernels for this GPU; install one that has",
            f"pip install {_RELEASE} {_INDEX}/cu126",
        )
    if card.capability < (5, 0):
        return "no torch build that camox supports has kernels for a GPU this old: use another GPU", ""
    return "this torch is too old for this GPU", "pip install --upgrade torch torchvision"


def _without(number: int, readings: Readings) -> str:
    if not readings.working:
        return ""
    chosen = ",".join(map(str, readings.working))
    return f"leave it out: --devices {chosen} --gpus {len(readings.working)}"


def _unless_cpu(question: Question) -> Status:
    return "problem" if question.needs_gpu else "warning"
