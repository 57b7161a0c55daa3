"""Batch sizes that fit in the GPUs' memory, decided before a run begins: smaller than requested, or the largest.

The global batch size stays the same, because the learning rates depend on it: gradient accumulation makes up for
smaller batches. Memory is measured in a separate process on each GPU, before training uses memory there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeAlias

import torch

from camoxpert_cli import console
from camoxpert_cli.config.batches import batch_flags, batches_within, own_batches
from camoxpert_cli.config.resolve import Resolved, to_mapping
from camoxpert_cli.config.schema import SETTINGS, Config
from camoxpert_cli.config.values import AUTO
from camoxpert_cli.engine.build import find_given
from camoxpert_cli.errors import ConfigError, DeviceError
from camoxpert_cli.launch.processes import Failure, ending_them
from camoxpert_cli.launch.run_probe import ask

_PROBE = "camoxpert_cli.launch.memory_probe"
# Seconds: enough to start from a cold disk and try a few steps that are too large.
_PATIENCE = 600
_KEYS = ("train.batch_size", "train.stage2_batch_size")

# The largest batch sizes of stages 1 and 2; 0 if not even one image fits.
Batches: TypeAlias = tuple[int, int]
# The largest batch sizes of a config that fit on each GPU, up to the given ones.
Measure: TypeAlias = Callable[[Config, Batches], Sequence[Batches | Failure]]


def is_measured(device: torch.device) -> bool:
    """Return whether a device reports running out of memory; on the CPU, the system kills the process instead."""
    return device.type == "cuda"


def refuse_auto_on_cpu(resolved: Resolved) -> None:
    """Raise ConfigError if a batch size is auto: there is no GPU whose memory could be measured."""
    for key in sorted(resolved.auto):
        first, second = own_batches(resolved.config)
        raise ConfigError(
            f"{SETTINGS[key].flag} {AUTO} measures GPU memory, but this run uses the CPU",
            f"omit it, or give numbers: --batch-size {first} --stage2-batch-size {second}",
        )


def fit_batches(resolved: Resolved, measure: Measure) -> Resolved:
    """Adjust batch sizes to what fits on every GPU, with activation checkpointing if a single image needs it.

    Batch sizes that are auto become the largest that fit; others are never increased. A change is reported with the
    equivalent flags. Raises DeviceError if nothing fits or auto cannot be measured, DataError if there are no images,
    and any error with which training would fail as soon as it began.
    """
    asked = resolved.config
    if asked.data.generated_images == 0:
        find_given(asked.data)  # report problems there before half a minute of trials
    console.say("Memory: trying two steps of each stage on every GPU")
    config = asked
    most = _smallest(measure(config, _limits(resolved)))
    if not isinstance(most, Failure) and 0 in most and not config.model.gradient_checkpointing:
        config = replace(config, model=replace(config.model, gradient_checkpointing=True))
        most = _smallest(measure(config, _limits(resolved)))
    if isinstance(most, Failure):
        if most.exit_code is not None:  # training would fail with the same error
            raise most.error(most.why)
        if resolved.auto:
            raise DeviceError(
                f"the largest batch size could not be measured: {most.why}", "set --batch-size to a number"
            )
        console.warn(f"GPU memory could not be measured: {most.why}; training starts with unchanged batch sizes")
        return resolved
    if 0 in most:
        raise DeviceError(
            f"stage {most.index(0) + 1} does not fit in GPU memory even with one image at a time and activation "
            "checkpointing",
            f"a smaller --img-size than {asked.data.img_size}, a smaller --backbone than {asked.model.backbone}, or a "
            "GPU that no other program uses",
        )
    if resolved.auto or any(few < own for few, own in zip(most, own_batches(asked), strict=True)):
        config = batches_within(config, most)
    _tell(resolved, config)
    return replace(resolved, config=config)


def on_devices(devices: Sequence[torch.device]) -> Measure:
    """Return a function that measures on each of the devices, at the same time."""

    def measure(config: Config, limits: Batches) -> Sequence[Batches | Failure]:
        settings = json.dumps(to_mapping(config))
        with ThreadPoolExecutor(len(devices)) as pool, ending_them(pool):
            return list(pool.map(lambda device: _ask(settings, device, limits), devices))

    return measure


def format_batches(config: Config) -> str:
    """Format as "batch sizes 8 and 6 (stages 1 and 2) with 2 accumulation steps"."""
    first, second = own_batches(config)
    steps = config.train.accumulation_steps
    text = f"batch sizes {first} and {second} (stages 1 and 2) with {console.counted(steps, 'accumulation step')}"
    return f"{text} and activation checkpointing" if config.model.gradient_checkpointing else text


def format_global_batches(before: Config, after: Config) -> str:
    """Describe whether the global batch sizes stay the same: "keeping the global batch sizes 16 and 12"."""
    old, new = before.global_batches, after.global_batches
    if old == new:
        return f"keeping the global batch sizes {new[0]} and {new[1]}"
    return f"changing the global batch sizes from {old[0]} and {old[1]} to {new[0]} and {new[1]}, the closest possible"


def _limits(resolved: Resolved) -> Batches:
    """The requested batch sizes; with auto, the images of a step. A number given alongside auto stays a limit."""
    own = own_batches(resolved.config)
    if not resolved.auto:
        return own
    steps = resolved.config.train.accumulation_steps
    first, second = (size if key in resolved.typed else size * steps for key, size in zip(_KEYS, own, strict=True))
    return first, second


def _smallest(answers: Sequence[Batches | Failure]) -> Batches | Failure:
    """The batch sizes that fit on all GPUs; a failure if one could not be measured."""
    measured = [each for each in answers if not isinstance(each, Failure)]
    if len(measured) < len(answers):
        return next(each for each in answers if isinstance(each, Failure))
    return min(first for first, _ in measured), min(second for _, second in measured)


def _ask(settings: str, device: torch.device, limits: Batches) -> Batches | Failure:
    answer = ask(_PROBE, settings, str(device), *map(str, limits), seconds=_PATIENCE)
    if isinstance(answer, Failure):
        return answer
    first, second = answer["batches"]
    return first, second


def _tell(resolved: Resolved, config: Config) -> None:
    asked = resolved.config
    flags = batch_flags(asked, config, assigned=resolved.goes_on)
    result = f"{format_batches(config)}, {format_global_batches(asked, config)}"
    if resolved.auto:
        by_hand = f"; equivalent flags: {flags}" if flags else "; the same as without auto"
        console.say(console.wrapped(f"Memory: the largest that fit are {result}{by_hand}"))
    elif flags:
        gpu = "each GPU" if config.gpu_count > 1 else "the GPU"
        console.warn(
            f"the requested batch sizes do not fit in the memory of {gpu}: using {result}. Equivalent flags: {flags}"
        )
