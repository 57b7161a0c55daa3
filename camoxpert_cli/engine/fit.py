"""Choose the number of epochs so that a run ends within its time: pure functions of what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from camoxpert_cli.config.schema import MOST_COUNTED, Config
from camoxpert_cli.engine.epochs import epoch_images, step_images
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.stages import Kind, Phase, keep_unfrozen

# Parts of the time that are left unused: of each session, and of the estimate for the end of the run, which is never
# measured before it comes.
_MARGIN = 0.01
_CLOSING_MARGIN = 0.25
# Seconds for printing the results and for ending the process.
_EXIT = 1.0
# The last epoch of the shortest run that is worth starting has this part of the images.
_LEAST_PART = 0.5


@dataclass(frozen=True)
class Pace:
    """Measured seconds: per training image of each kind of phase, per epoch besides, and after the last epoch.

    `between` is for validation and saving, `closing` for scoring the best weights and writing the results.
    """

    per_image: Mapping[Kind, float]
    between: float
    closing: float

    def following(self, kind: Kind, per_image: float, between: float, weight: float) -> Pace:
        """Return the pace with what was measured in an epoch of phase `kind`, which counts by `weight` (0..1).

        Other kinds are faster or slower by the same factor.
        """
        factor = 1 - weight + weight * per_image / self.per_image[kind]
        return replace(
            self,
            per_image={other: factor * seconds for other, seconds in self.per_image.items()},
            between=(1 - weight) * self.between + weight * between,
        )


@dataclass(frozen=True)
class Position:
    """Where a run is: in `epoch` (from 0), after `samples` of its images, with `backbone_stages` in training."""

    epoch: int = 0
    samples: int = 0
    backbone_stages: int = 0


@dataclass(frozen=True)
class Budget:
    """The time of a run: `sessions` of them, `session` seconds each, of which the current one ends at `end`.

    A later session loses `startup` seconds before its first step.
    """

    sessions: int
    session: float
    end: float
    startup: float

    def left(self, now: float, pace: Pace, unused: float) -> float:
        """Return the seconds that the rest of a run may take; every session but the last leaves some `unused`."""
        return self.end - now + (self.sessions - 1) * (self.session - self.startup - unused) - self._margin(pace)

    def needed(self, spent: float, rest: float, pace: Pace, unused: float) -> float:
        """Return how long a session has to be for `rest` to fit when it begins, `spent` seconds into the first one."""
        fixed = _CLOSING_MARGIN * pace.closing + _EXIT + (self.sessions - 1) * (self.startup + unused)
        return (rest + spent + fixed) / (self.sessions * (1 - _MARGIN))

    def _margin(self, pace: Pace) -> float:
        return self.sessions * _MARGIN * self.session + _CLOSING_MARGIN * pace.closing + _EXIT


def longest(recipe: Config, current: Config, images: int, pace: Pace, budget: float, at: Position) -> Config:
    """Return `current` with as many epochs, from position `at` on, as fit into `budget` seconds.

    The last epoch may train on only some of the `images` training images, in whole optimizer steps. Stages and warmup
    have the proportions of `recipe`, but what has been stays: stage 1 keeps its length once it is over, and the warmup
    once stage 2 has begun. If nothing fits, the shortest possible run is returned.
    """
    least = _fewest_epochs(recipe, current, at)

    def fits(epochs: int) -> bool:
        return seconds_left(with_epochs(recipe, current, epochs, at), images, pace, at) <= budget

    whole, too_many = least - 1, least
    while too_many < MOST_COUNTED and fits(too_many):
        whole, too_many = too_many, min(2 * too_many, MOST_COUNTED)
    while whole + 1 < too_many:
        middle = (whole + too_many) // 2
        whole, too_many = (middle, too_many) if fits(middle) else (whole, middle)
    longer = with_epochs(recipe, current, whole + 1, at)
    if whole < least or _fitting_part(longer, images, pace, budget, at) >= _step_at_end(longer, at):
        return with_part(longer, images, pace, budget, at)
    return with_epochs(recipe, current, whole, at)


def with_part(config: Config, images: int, pace: Pace, budget: float, at: Position) -> Config:
    """Return `config` with as many images in its last epoch as fit into `budget` seconds from position `at` on.

    It has at least one optimizer step, and none that has been made is taken back.
    """
    step = _step_at_end(config, at)
    seen = step * math.ceil(at.samples / step) if at.epoch + 1 == config.train.epochs else 0
    part = max(_fitting_part(config, images, pace, budget, at), step, seen)
    return replace(config, train=replace(config.train, last_epoch_images=None if part >= images else part))


def shortest(recipe: Config, images: int) -> Config:
    """Return the shortest run that is worth starting: an epoch of each stage, the last one with half of the images."""
    least = with_epochs(recipe, recipe, _fewest_epochs(recipe, recipe, Position()), Position())
    return replace(least, train=replace(least.train, last_epoch_images=max(1, round(_LEAST_PART * images))))


def without_skipped(recipe: Config) -> Config:
    """Return a recipe that skips stage 1 as one that has none: its epochs are those that are trained."""
    train = recipe.train
    if not train.skip_stage1:
        return recipe
    return replace(recipe, train=replace(train, epochs=train.epochs - train.stage1_epochs, stage1_epochs=0))


def with_epochs(recipe: Config, current: Config, epochs: int, at: Position) -> Config:
    """Return `current` with `epochs` whole epochs, divided as `longest` says."""
    train, first, warmup = recipe.train, current.train.stage1_epochs, current.train.warmup_epochs
    if train.stage1_epochs == train.epochs:
        first = epochs
    elif at.epoch < first:
        first = min(max(round(train.stage1_epochs * epochs / train.epochs), at.epoch + 1), epochs - 1)
    if not _stage2_has_begun(current, at):
        part = (epochs - first) / max(1, train.epochs - train.stage1_epochs)
        warmup = max(0, min(round(train.warmup_epochs * part), epochs - first - 1))
    chosen = replace(current.train, epochs=epochs, stage1_epochs=first, warmup_epochs=warmup, last_epoch_images=None)
    return replace(current, train=chosen)


def seconds_left(config: Config, images: int, pace: Pace, at: Position) -> float:
    """Return the seconds that a run with these settings takes from position `at` on, to its end."""
    phases, seconds = _phases(config, at), pace.closing
    for phase in phases:
        epochs = phase.end - max(phase.first, at.epoch)
        if epochs > 0:
            seconds += epochs * (images * pace.per_image[phase.kind] + pace.between)
    unseen = images - epoch_images(config, config.train.epochs - 1, images)
    now = next(phase for phase in phases if phase.end > at.epoch)
    return seconds - unseen * pace.per_image[phases[-1].kind] - at.samples * pace.per_image[now.kind]


def _fewest_epochs(recipe: Config, current: Config, at: Position) -> int:
    """The lowest number of epochs that a run at position `at` can still have: one more, and one in each stage."""
    if recipe.train.stage1_epochs == recipe.train.epochs:
        return at.epoch + 1
    first, warmup = current.train.stage1_epochs, current.train.warmup_epochs
    if at.epoch < first:
        return at.epoch + 2
    return max(at.epoch, first + (warmup if _stage2_has_begun(current, at) else 0)) + 1


def _stage2_has_begun(config: Config, at: Position) -> bool:
    return (at.epoch, at.samples) > (config.train.stage1_epochs, 0)


def _fitting_part(config: Config, images: int, pace: Pace, budget: float, at: Position) -> int:
    """How many images the last epoch may have, in whole optimizer steps; zero or less if not even one step fits."""
    whole = replace(config, train=replace(config.train, last_epoch_images=None))
    excess = (seconds_left(whole, images, pace, at) - budget) / pace.per_image[_phases(config, at)[-1].kind]
    step = _step_at_end(config, at)
    # A rounding error must not cost a step.
    return images if excess <= 0 else step * math.floor((images - excess) / step + 1e-6)


def _step_at_end(config: Config, at: Position) -> int:
    return step_images(config, _phases(config, at)[-1].stage)


def _phases(config: Config, at: Position) -> list[Phase]:
    return keep_unfrozen(build_phases(config), at.epoch, at.backbone_stages)
