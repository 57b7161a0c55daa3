"""Per-GPU batch sizes, and the gradient accumulation that turns them into a global batch size."""

from __future__ import annotations

import math
from dataclasses import replace

from camoxpert_cli.config.schema import SETTINGS, Config

# The settings that determine the global batch size, together with the number of GPUs.
BATCH_SETTINGS = {"train.batch_size", "train.stage2_batch_size", "train.accumulation_steps"}


def own_batches(config: Config) -> tuple[int, int]:
    """Return the per-GPU batch sizes of stages 1 and 2."""
    return config.train.batch_size, config.stage2_batch_size


def exact_batches(wanted: tuple[int, int], gpus: int) -> list[tuple[int, int, int]]:
    """Return all (stage 1, stage 2, accumulation) that give global batch sizes of `wanted` images; largest first.

    The first two are per-GPU batch sizes; accumulation is the same in both stages. Empty if there is no integer
    solution.
    """
    found = []
    for steps in range(1, min(wanted) + 1):
        (first, rest), (second, other_rest) = (divmod(images, gpus * steps) for images in wanted)
        if rest == other_rest == 0:
            found.append((first, second, steps))
    return found


def batches_within(config: Config, most: tuple[int, int], wanted: tuple[int, int] | None = None) -> Config:
    """Return `config` with the largest per-GPU batch sizes up to `most` (1 or more) that give the global ones `wanted`.

    By default these are its own. If no integers give them exactly, the batch sizes come as near as possible in both
    stages.
    """
    gpus, wanted = config.gpu_count, wanted or config.global_batches
    for first, second, steps in exact_batches(wanted, gpus):
        if first <= most[0] and second <= most[1]:
            return _with(config, first, second, steps)

    def nearest(images: int, largest: int, steps: int) -> int:
        exact = images / gpus / steps
        sizes = [min(largest, max(1, size)) for size in (math.floor(exact), math.ceil(exact))]
        return min(sizes, key=lambda size: abs(math.log(size / exact)))

    choices = [
        (nearest(wanted[0], most[0], steps), nearest(wanted[1], most[1], steps), steps)
        for steps in range(1, math.ceil(max(wanted) / gpus) + 1)
    ]

    def distance(choice: tuple[int, int, int]) -> float:
        first, second, steps = choice
        made = (first * steps * gpus, second * steps * gpus)
        return max(abs(math.log(each / images)) for each, images in zip(made, wanted, strict=True))

    return _with(config, *min(choices, key=distance))


def batch_flags(before: Config, after: Config, *, assigned: bool = False) -> str:
    """Return the flags that change batch sizes, accumulation and activation checkpointing from `before` to `after`.

    With `assigned` they are written as `--set`, which also works for a resumed run.
    """
    changed = {}
    if own_batches(after) != own_batches(before):  # both, because an unset stage 2 follows stage 1
        changed["train.batch_size"], changed["train.stage2_batch_size"] = own_batches(after)
    if after.train.accumulation_steps != before.train.accumulation_steps:
        changed["train.accumulation_steps"] = after.train.accumulation_steps
    flags = [f"--set {key}={value}" if assigned else f"{SETTINGS[key].flag} {value}" for key, value in changed.items()]
    if after.model.gradient_checkpointing and not before.model.gradient_checkpointing:
        flags.append("--set model.gradient_checkpointing=true" if assigned else "--gradient-checkpointing")
    return " ".join(flags)


def _with(config: Config, first: int, second: int, steps: int) -> Config:
    train = replace(config.train, batch_size=first, stage2_batch_size=second, accumulation_steps=steps)
    return replace(config, train=train)
