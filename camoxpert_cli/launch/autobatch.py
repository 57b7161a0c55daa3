"""Batches that the GPUs' memory holds, decided before a run begins: smaller ones than asked for, or the largest.

The images of an optimizer step stay what they were, for the learning rates belong to them: accumulation makes up for
smaller batches. A measurement is a process of its own on each GPU, before training takes memory there.
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
# Seconds: of starting on a cold disk, and some steps that are too large.
_PATIENCE = 600
_KEYS = ("train.batch_size", "train.stage2_batch_size")

# The most images at a time in stages 1 and 2; 0 where the memory does not hold one.
Batches: TypeAlias = tuple[int, int]
# What each GPU holds of a recipe, up to the batches given.
Measure: TypeAlias = Callable[[Config, Batches], Sequence[Batches | Failure]]


def is_measured(device: torch.device) -> bool:
    """Whether a device says when its memory is used up; the system ends a process that takes too much of its own."""
    return device.type == "cuda"


def refuse_auto_on_cpu(resolved: Resolved) -> None:
    """Raise ConfigError where a batch size is auto: there is no GPU whose memory could be measured."""
    for key in sorted(resolved.auto):
        first, second = own_batches(resolved.config)
        raise ConfigError(
            f"{SETTINGS[key].flag} {AUTO} measures a GPU's memory, and this run is on the CPU",
            f"leave it out, or give numbers: --batch-size {first} --stage2-batch-size {second}",
        )


def fit_batches(resolved: Resolved, measure: Measure) -> Resolved:
    """The settings in batches that every GPU's memory holds, with gradient checkpointing where one image needs it.

    Batches that are auto are the largest that do, others at most what they were. A change is said, with the flags that
    ask for it. Raises DeviceError where nothing fits or auto cannot be measured, DataError where there are no images,
    and what training would end of as soon as it began.
    """
    asked = resolved.config
    if asked.data.generated_images == 0:
        find_given(asked.data)  # what is wrong there is told before half a minute of trials
    console.say("Memory: trying two steps of each stage on every GPU")
    config = asked
    most = _smallest(measure(config, _limits(resolved)))
    if not isinstance(most, Failure) and 0 in most and not config.model.gradient_checkpointing:
        config = replace(config, model=replace(config.model, gradient_checkpointing=True))
        most = _smallest(measure(config, _limits(resolved)))
    if isinstance(most, Failure):
        if most.exit_code is not None:  # training would end of the same
            raise most.error(most.why)
        if resolved.auto:
            raise DeviceError(f"the largest batch cannot be measured: {most.why}", "give --batch-size a number")
        console.warn(f"the memory was not measured: {most.why}; training is tried as it is")
        return resolved
    if 0 in most:
        raise DeviceError(
            f"stage {most.index(0) + 1} does not fit into the GPU's memory with one picture at a time and gradient "
            "checkpointing",
            f"a smaller --img-size than {asked.data.img_size}, a smaller --backbone than {asked.model.backbone}, or a "
            "GPU that no other program uses",
        )
    if resolved.auto or any(few < own for few, own in zip(most, own_batches(asked), strict=True)):
        config = batches_within(config, most)
    _tell(resolved, config)
    return replace(resolved, config=config)


def on_devices(devices: Sequence[torch.device]) -> Measure:
    """Measures on each of the devices, at the same time."""

    def measure(config: Config, limits: Batches) -> Sequence[Batches | Failure]:
        settings = json.dumps(to_mapping(config))
        with ThreadPoolExecutor(len(devices)) as pool, ending_them(pool):
            return list(pool.map(lambda device: _ask(settings, device, limits), devices))

    return measure


def format_batches(config: Config) -> str:
    """Batches and accumulation: "batches of 8 and 6 (stage 1 and 2) and 2 accumulation steps"."""
    first, second = own_batches(config)
    steps = config.train.accumulation_steps
    text = f"batches of {first} and {second} (stage 1 and 2) and {steps} accumulation step{'s' if steps > 1 else ''}"
    return f"{text}, with gradient checkpointing" if config.model.gradient_checkpointing else text


def format_global_batches(before: Config, after: Config) -> str:
    """Whether a step has the images that it had."""
    old, new = before.global_batches, after.global_batches
    if old == new:
        return f"make the same {new[0]} and {new[1]} pictures a step"
    return f"make {new[0]} and {new[1]} pictures a step instead of {old[0]} and {old[1]}, as near as whole numbers come"


def _limits(resolved: Resolved) -> Batches:
    """As asked for; where auto is, as many as a step has. A number that was typed beside it stays a limit."""
    own = own_batches(resolved.config)
    if not resolved.auto:
        return own
    steps = resolved.config.train.accumulation_steps
    first, second = (size if key in resolved.typed else size * steps for key, size in zip(_KEYS, own, strict=True))
    return first, second


def _smallest(answers: Sequence[Batches | Failure]) -> Batches | Failure:
    """What all GPUs hold; a failure where one could not be measured."""
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
    result = f"{format_batches(config)} {format_global_batches(asked, config)}"
    if resolved.auto:
        by_hand = f"; the same by hand: {flags}" if flags else ", as they are without auto"
        console.say(console.wrapped(f"Memory: the largest {result}{by_hand}"))
    elif flags:
        each = "each GPU's" if config.gpu_count > 1 else "the GPU's"
        console.warn(f"{each} memory does not hold the batches asked for: {result}. The same by hand: {flags}")
