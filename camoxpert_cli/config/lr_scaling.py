"""Checks whether a run's learning rates still match its global batch sizes after the user changed a recipe.

If the batch grows sixteenfold and the learning rate stays or falls, each image contributes next to nothing and training
collapses. In practice, AdamW's learning rate is scaled with the batch size or with its square root; both are accepted
here, and so is a factor of two around linear scaling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from camoxpert_cli.config.batches import BATCH_SETTINGS
from camoxpert_cli.config.parse import parse_devices
from camoxpert_cli.config.presets import PRESET_FOLDER, preset_names
from camoxpert_cli.config.resolve import ASSIGNED, Resolved, resolve
from camoxpert_cli.config.schema import SETTINGS, Config

# Accepted factor between a learning rate and linear scaling.
TOLERANCE = 2.0
# Rates and square roots are rounded: exactly at the limit counts as within it.
_ROUNDING = 1 + 1e-9
# Beyond this, a suggestion is of no use.
_MOST_STEPS = 1000
_RATES = {1: "train.lr", 2: "train.stage2_lr"}


@dataclass(frozen=True)
class StageLr:
    """A stage's learning rate, above zero, and its global batch size in images."""

    rate: float
    images: int
    owner: str = ""

    @property
    def lr_per_image(self) -> float:
        """Return the learning rate divided by the global batch size."""
        return self.rate / self.images


def follows_scaling(own: StageLr, recipe: StageLr) -> bool:
    """Return whether the rate is within TOLERANCE of linear scaling, or between linear and square-root scaling."""
    scale, change = own.images / recipe.images, own.rate / recipe.rate
    low = min(scale / TOLERANCE, math.sqrt(scale))
    high = max(scale * TOLERANCE, math.sqrt(scale))
    return low / _ROUNDING <= change <= high * _ROUNDING


def lr_scaling_warning(resolved: Resolved) -> str | None:
    """Return a warning of several lines: the stages whose learning rate does not match the batch size, and the fix.

    None if all match what the user started from: the preset or, on resume, the run so far. Without a preset, matching
    the defaults or any built-in preset is enough. The number of GPUs must have been resolved before.
    """
    own = stage_lrs(resolved.config)
    recipes = [stage_lrs(config, name) for name, config in _starting_points(resolved)]
    wrong = _misfits(own, recipes)
    if not wrong:
        return None
    lines = ["the learning rate does not match the batch size, so training may collapse:"]
    lines += [f"  stage {number}: {_format_comparison(own[number], recipe)}" for number, recipe in wrong.items()]
    lines.append(
        f"  to scale the learning rate: {_format_settings(resolved, _scaled_lrs(resolved.config, own, wrong))}"
    )
    steps = _scaled_steps(resolved, own, wrong, recipes)
    if steps is not None:
        lines.append(f"  or, to keep it: {_format_settings(resolved, {'train.accumulation_steps': steps})}")
    lines.append(
        "  AdamW's learning rate is usually scaled with the batch size or its root; training continues unchanged.\n"
        "  See camox guide several-gpus."
    )
    return "\n".join(lines)


def stage_lrs(config: Config, owner: str = "") -> dict[int, StageLr]:
    """Return the stages that are trained, by number."""
    train = config.train
    epochs = (0 if train.skip_stage1 else train.stage1_epochs, train.epochs - train.stage1_epochs)
    rates = (train.lr, config.stage2_rate)
    return {
        number: StageLr(rate, images, owner)
        for number, count, rate, images in zip((1, 2), epochs, rates, config.global_batches, strict=True)
        if count > 0 and rate / images > 0
    }


def _misfits(own: Mapping[int, StageLr], recipes: Sequence[Mapping[int, StageLr]]) -> dict[int, StageLr]:
    """Return the nearest recipe for each stage that matches none of them."""
    found = {}
    for number, stage in own.items():
        references = [recipe[number] for recipe in recipes if number in recipe]
        if references and not any(follows_scaling(stage, each) for each in references):
            found[number] = min(references, key=lambda each: abs(math.log(each.lr_per_image / stage.lr_per_image)))
    return found


def _starting_points(resolved: Resolved) -> list[tuple[str, Config]]:
    """Return the configurations to compare the run with, and their names."""
    if resolved.preset is not None:
        found = [(f"preset {resolved.preset}", resolved.base)]
    elif resolved.goes_on:
        found = [("the run so far", resolved.base)]
    else:
        files = {name: PRESET_FOLDER / f"{name}.yaml" for name in preset_names()}
        built_in = [(f"preset {name}", resolve(str(path), {}).config) for name, path in files.items()]
        found = [("the defaults", resolved.base), *built_in]
    return [(name, _counted(config, resolved.config.gpu_count)) for name, config in found]


def _counted(config: Config, gpus: int) -> Config:
    """Return `config` with a number of GPUs: that of the run if it asks for all."""
    if config.run.devices is not None:
        gpus = len(parse_devices(config.run.devices))
    elif config.run.gpus != "all":
        return config
    return replace(config, run=replace(config.run, gpus=gpus))


def _format_comparison(own: StageLr, recipe: StageLr) -> str:
    ratio = own.lr_per_image / recipe.lr_per_image
    times = f"{1 / ratio:.3g} times less" if ratio < 1 else f"{ratio:.3g} times more"
    return (
        f"{own.rate:g} at a global batch size of {own.images} is {own.lr_per_image:.3g} per image, "
        f"{times} than in {recipe.owner} "
        f"({recipe.rate:g} at {recipe.images}: {recipe.lr_per_image:.3g})"
    )


def _scaled_lrs(config: Config, own: Mapping[int, StageLr], wrong: Mapping[int, StageLr]) -> dict[str, float]:
    """Return the rates with the recipe's learning rate per image; stages that match keep theirs."""
    train = config.train
    scaled = {number: recipe.rate * (own[number].images / recipe.images) for number, recipe in wrong.items()}
    rates = {number: float(f"{rate:.3g}") for number, rate in scaled.items()}
    if 1 in rates and 2 in own and train.stage2_lr is None:
        rates.setdefault(2, own[2].rate)
    settings = {_RATES[number]: rates[number] for number in sorted(rates)}
    if train.scheduler != "none" and min(rates.values()) < train.min_lr:
        # No schedule can end above the rate it starts from.
        fall = min(rates[number] / own[number].rate for number in rates)
        settings["train.min_lr"] = float(f"{train.min_lr * fall:.3g}")
    return settings


def _scaled_steps(
    resolved: Resolved,
    own: Mapping[int, StageLr],
    wrong: Mapping[int, StageLr],
    recipes: Sequence[Mapping[int, StageLr]],
) -> int | None:
    """Return the accumulation steps whose batch size matches the rates; None if none do, or no batch size was typed."""
    # If only GPUs were typed, they would replace the steps that keep the preset's global batch sizes.
    if not resolved.typed & BATCH_SETTINGS:
        return None
    train = resolved.config.train
    for number, recipe in wrong.items():
        at_once = own[number].images / train.accumulation_steps
        steps = max(1, round(min(own[number].rate / recipe.lr_per_image / at_once, _MOST_STEPS)))
        changed = replace(resolved.config, train=replace(train, accumulation_steps=steps))
        if not _misfits(stage_lrs(changed), recipes):
            return steps
    return None


def _format_settings(resolved: Resolved, settings: Mapping[str, Any]) -> str:
    """Return what to type: flags, or assignments if flags would be overridden or `camox resume` lacks them."""
    return " ".join(
        f"{ASSIGNED} {key}={value!r}"
        if resolved.goes_on or resolved.origins[key] == ASSIGNED
        else f"{SETTINGS[key].flag} {value!r}"
        for key, value in settings.items()
    )
