"""What the readings of driver, torch and each GPU mean."""

from __future__ import annotations

import re

from camoxpert_cli import console
from camoxpert_cli.doctor.finding import Finding, Question, Status
from camoxpert_cli.doctor.readings import Driver, Gpu, GpuTrial, Readings, Torch
from camoxpert_cli.doctor.words import count
from camoxpert_cli.launch.processes import Failure

# The oldest driver for each version of CUDA: NVIDIA's "CUDA Toolkit Release Notes", table of minor version
# compatibility.
_OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
# The release that camox asks for at least is built for the most cards and drivers: these are its indices.
_RELEASE = "torch==2.10.0 torchvision==0.25.0"
_INDEX = "--index-url https://download.pytorch.org/whl"
CPU_COMMAND = "camox train --preset quickstart"
KAGGLE_CHOICE = "choose GPU T4 x2 as accelerator in the notebook's settings; the session starts anew"
# Part of its memory that a card has free where nothing else runs on it; the probe itself takes a few percent.
_FREE = 0.9


def gpu_findings(readings: Readings, question: Question) -> list[Finding]:
    """The driver, torch's build and each card."""
    return [
        _driver(readings, question),
        _torch(readings, question),
        *_cards(readings, question),
    ]


def supported(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Whether a build has kernels for a card: binary code of its own generation, or code it can still be made from."""
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
    """None where it is not known, for want of a driver or of a build with CUDA."""
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
            return Finding("driver", "ok", ran, f"{driver.why}, and torch sees GPUs all the same")
        return Finding("driver", "skipped", ran, driver.why)
    result = f"{driver.version}, {count(len(driver.cards), 'card')}"
    if not readings.seen and driver_too_old(readings):
        assert isinstance(readings.torch, Torch)
        needed = _needed_driver(readings)
        result += f"; CUDA {readings.torch.cuda}, which torch was built with, needs {needed} or newer"
        advice = f"install a driver from {needed} on"
        command = ""
        if _driver_major(readings) >= _OLDEST_DRIVER[12]:
            advice += ", or a torch for this one"
            command = f"pip install {_RELEASE} {_INDEX}/cu128"
        return Finding("driver", _unless_cpu(question), ran, result, advice, command)
    return Finding("driver", "ok", ran, result)


def _torch(readings: Readings, question: Question) -> Finding:
    ran = "import torch"
    build = readings.torch
    if isinstance(build, Failure):
        return Finding(
            "torch", "problem", ran, build.why, "install it anew", "pip install --force-reinstall torch torchvision"
        )
    if build.cuda is None:
        result = f"{build.version}, built without CUDA"
        if isinstance(readings.driver, Driver) and question.needs_gpu:
            old = _driver_major(readings) < _OLDEST_DRIVER[13]
            index = f"{_INDEX}/{'cu128' if old else 'cu130'}"
            return Finding(
                "torch", "problem", ran, result, "install a build with CUDA", f"pip install {_RELEASE} {index}"
            )
        return Finding("torch", "ok", ran, result)
    return Finding("torch", "ok", ran, f"{build.version}, CUDA {build.cuda}, for {', '.join(build.architectures)}")


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
        return Finding("GPUs", "ok", ran, f"none, and {question.preset} needs none")
    if isinstance(build, Failure) or driver_too_old(readings):
        return Finding("GPUs", "skipped", ran, "not before what is said above is done")
    if isinstance(readings.driver, Driver):
        if build.cuda is None:
            return Finding("GPUs", "skipped", ran, "not before what is said above is done")
        if "CUDA_VISIBLE_DEVICES" in readings.environment:
            return Finding("GPUs", "skipped", ran, "none; see the variables below")
        result = f"none, though the driver has {count(len(readings.driver.cards), 'card')}: {build.complaint}"
        return Finding("GPUs", "problem", ran, result, "restart the session or the machine")
    if readings.kaggle:
        return Finding("GPUs", "problem", ran, "none: this session has no accelerator", KAGGLE_CHOICE)
    return Finding(
        "GPUs", "problem", ran, "none", "the presets take a machine with an NVIDIA GPU; without one, try", CPU_COMMAND
    )


def _card(number: int, card: Gpu, trial: GpuTrial | Failure, readings: Readings, question: Question) -> Finding:
    name = f"GPU {number}"
    dtype = "native bf16" if card.native_bf16 else "no native bf16, so fp16"
    what = (
        f"{card.name}, {console.byte_size(card.memory)}, capability {'.'.join(map(str, card.capability))}, "
        f"{card.multiprocessors} multiprocessors, {dtype}"
    )
    # Others can do without it.
    broken: Status = "warning" if readings.working else _unless_cpu(question)
    if isinstance(trial, Failure):
        return Finding(
            name, broken, "a kernel", f"{what}; {trial.why}", _without(number, readings) or "restart the session"
        )
    if trial.kernel:
        return Finding(name, broken, "a kernel", f"{what}; {trial.kernel}", *_no_kernel(number, card, readings))
    ran = f"a convolution in {trial.number_format}, forward and backward"
    if trial.convolution:
        advice = _without(number, readings) or "restart the session; if it stays so, the card or its driver is faulty"
        return Finding(name, broken, ran, f"{what}; {trial.convolution}", advice)
    if trial.free < _FREE * card.memory:
        result = f"{what}, only {console.byte_size(trial.free)} of it free"
        return Finding(name, "warning", ran, result, "another program holds the rest; see which with", "nvidia-smi")
    return Finding(name, "ok", ran, f"{what}, {console.byte_size(trial.free)} of it free")


def _no_kernel(number: int, card: Gpu, readings: Readings) -> tuple[str, str]:
    """Advice and command where nothing runs on a card."""
    build = readings.torch
    assert isinstance(build, Torch)
    if supported(card.capability, build.architectures):
        return _without(number, readings) or "restart the session; if it stays so, the card or its driver is faulty", ""
    if readings.kaggle:
        return f"this torch has no code for the card: {KAGGLE_CHOICE}", ""
    if card.capability >= (5, 0) and card.capability < (7, 5):
        return "this torch has no code for the card, another build has", f"pip install {_RELEASE} {_INDEX}/cu126"
    if card.capability < (5, 0):
        return "no build of torch that camox works with has code for a card so old: take another one", ""
    return "this torch is older than the card", "pip install --upgrade torch torchvision"


def _without(number: int, readings: Readings) -> str:
    if not readings.working:
        return ""
    chosen = ",".join(map(str, readings.working))
    return f"do without it: --devices {chosen} --gpus {len(readings.working)}"


def _unless_cpu(question: Question) -> Status:
    return "problem" if question.needs_gpu else "warning"
