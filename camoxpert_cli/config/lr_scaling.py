"""Whether a run's learning rates still belong to its batches, after what the user changed of a recipe.

A rate that stays, or falls, where the batch grows sixteenfold leaves each image next to nothing: training collapses.
Practice scales AdamW's rate with the batch, or with its square root; both are in order here, and so is a factor of two
beside the former.
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

# How far from linear scaling a rate may be.
TOLERANCE = 2.0
# Rates and roots are rounded: what is exactly at the edge is within it.
_ROUNDING = 1 + 1e-9
# More is no advice.
_MOST_STEPS = 1000
_RATES = {1: "train.lr", 2: "train.stage2_lr"}


@dataclass(frozen=True)
class StageLr:
    """A stage's learning rate, above zero, and its images of an optimizer step over all GPUs."""

    rate: float
    images: int
    owner: str = ""

    @property
    def lr_per_image(self) -> float:
        """The learning rate for one image of a step."""
        return self.rate / self.images


def follows_scaling(own: StageLr, recipe: StageLr) -> bool:
    """Whether the rate is at most TOLERANCE times off linear scaling of the recipe's, or no further than its root."""
    scale, change = own.images / recipe.images, own.rate / recipe.rate
    low = min(scale / TOLERANCE, math.sqrt(scale))
    high = max(scale * TOLERANCE, math.sqrt(scale))
    return low / _ROUNDING <= change <= high * _ROUNDING


def lr_scaling_warning(resolved: Resolved) -> str | None:
    """What to warn of, in some lines: the stages whose rate does not fit the batch, and what to type.

    None where all fit what the user started from: the preset, or the run that goes on. Without a preset they fit where
    they fit the defaults or any preset that comes with camox. The number of GPUs must have been counted before.
    """
    own = stage_lrs(resolved.config)
    recipes = [stage_lrs(config, name) for name, config in _starting_points(resolved)]
    wrong = _misfits(own, recipes)
    if not wrong:
        return None
    lines = ["the learning rate does not fit the batch, over which training can collapse:"]
    lines += [f"  stage {number}: {_format_comparison(own[number], recipe)}" for number, recipe in wrong.items()]
    lines.append(f"  in proportion: {_format_settings(resolved, _scaled_lrs(resolved.config, own, wrong))}")
    steps = _scaled_steps(resolved, own, wrong, recipes)
    if steps is not None:
        lines.append(f"  or, with these rates: {_format_settings(resolved, {'train.accumulation_steps': steps})}")
    lines.append("  AdamW's rate is scaled with the batch or with its square root; training goes on as asked.")
    return "\n".join(lines)


def stage_lrs(config: Config, owner: str = "") -> dict[int, StageLr]:
    """The stages that train, by number."""
    train = config.train
    epochs = (0 if train.skip_stage1 else train.stage1_epochs, train.epochs - train.stage1_epochs)
    rates = (train.lr, config.stage2_rate)
    return {
        number: StageLr(rate, images, owner)
        for number, count, rate, images in zip((1, 2), epochs, rates, config.global_batches, strict=True)
        if count > 0 and rate / images > 0
    }


def _misfits(own: Mapping[int, StageLr], recipes: Sequence[Mapping[int, StageLr]]) -> dict[int, StageLr]:
    """For each stage that fits none of the recipes, the nearest."""
    found = {}
    for number, stage in own.items():
        references = [recipe[number] for recipe in recipes if number in recipe]
        if references and not any(follows_scaling(stage, each) for each in references):
            found[number] = min(references, key=lambda each: abs(math.log(each.lr_per_image / stage.lr_per_image)))
    return found


def _starting_points(resolved: Resolved) -> list[tuple[str, Config]]:
    """What the run may be in proportion to, and what to call it."""
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
    """With a number of GPUs: where it asks for all, so many as the run has."""
    if config.run.devices is not None:
        gpus = len(parse_devices(config.run.devices))
    elif config.run.gpus != "all":
        return config
    return replace(config, run=replace(config.run, gpus=gpus))


def _format_comparison(own: StageLr, recipe: StageLr) -> str:
    ratio = own.lr_per_image / recipe.lr_per_image
    times = f"{1 / ratio:.3g} times less" if ratio < 1 else f"{ratio:.3g} times more"
    return (
        f"{own.rate:g} for {own.images} pictures a step is {own.lr_per_image:.3g} for each, "
        f"{times} than in {recipe.owner} "
        f"({recipe.rate:g} for {recipe.images}: {recipe.lr_per_image:.3g})"
    )


def _scaled_lrs(config: Config, own: Mapping[int, StageLr], wrong: Mapping[int, StageLr]) -> dict[str, float]:
    """The rates that give each image what the recipe does; stages that fit keep theirs."""
    train = config.train
    scaled = {number: recipe.rate * (own[number].images / recipe.images) for number, recipe in wrong.items()}
    rates = {number: float(f"{rate:.3g}") for number, rate in scaled.items()}
    if 1 in rates and 2 in own and train.stage2_lr is None:
        rates.setdefault(2, own[2].rate)
    settings = {_RATES[number]: rates[number] for number in sorted(rates)}
    if train.scheduler != "none" and min(rates.values()) < train.min_lr:
        # No schedule can end above its rate.
        fall = min(rates[number] / own[number].rate for number in rates)
        settings["train.min_lr"] = float(f"{train.min_lr * fall:.3g}")
    return settings


def _scaled_steps(
    resolved: Resolved,
    own: Mapping[int, StageLr],
    wrong: Mapping[int, StageLr],
    recipes: Sequence[Mapping[int, StageLr]],
) -> int | None:
    """Accumulation steps that make batches to fit the rates; None where none do, or no batch was typed."""
    # Typed beside GPUs alone, they would replace those that keep the preset's batches.
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
    """What to type: flags, or assignments where flags would not count or `camox resume` has none."""
    return " ".join(
        f"{ASSIGNED} {key}={value!r}"
        if resolved.goes_on or resolved.origins[key] == ASSIGNED
        else f"{SETTINGS[key].flag} {value!r}"
        for key, value in settings.items()
    )
