"""Runs that are fitted to their time, without any training: steps, validations and ends just take their time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.epochs import epoch_images, step_images
from camoxpert_cli.engine.fit import Budget, Pace, Position, longest, without_skipped
from camoxpert_cli.engine.fitting import Fitting
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.stages import Kind, keep_unfrozen


@dataclass
class Machine:
    """How long everything really takes, times what `slowness` says of the moment."""

    per_image: Mapping[Kind, float]
    validation: float
    saving: float
    closing: float
    slowness: Callable[[float], float] = lambda now: 1.0

    def __post_init__(self) -> None:
        self.now = 0.0

    def spend(self, seconds: float) -> None:
        self.now += seconds * self.slowness(self.now)


@dataclass(frozen=True)
class Ended:
    """When a simulated run ended, or was stopped because there was no time left, and how often its length changed."""

    now: float
    config: Config
    changes: int
    stopped: bool


def simulate(recipe: Config, images: int, machine: Machine, seconds: float, startup: float = 5.0) -> Ended:
    """A whole run of one session: measured for a moment, then trained, fitted after each epoch and in the last one."""
    recipe = without_skipped(recipe)
    machine.now = 0.0
    machine.spend(startup)
    started = machine.now
    # What is measured before the run is as slow as the machine is then.
    slow = machine.slowness(machine.now)
    measured = Pace(
        {kind: slow * each for kind, each in machine.per_image.items()},
        slow * (machine.validation + machine.saving),
        slow * machine.closing,
    )
    machine.spend(0.01 * seconds + machine.validation + machine.saving + machine.closing)
    budget = Budget(1, seconds, seconds, machine.now - started)
    fitting = Fitting(recipe, budget, measured, images)
    config = longest(recipe, recipe, images, measured, budget.left(machine.now, measured, 0.0), Position())
    epoch, changes, stages = 0, 0, 0
    while epoch < config.train.epochs:
        phase = next(each for each in keep_unfrozen(build_phases(config), epoch, stages) if each.end > epoch)
        stages, samples, began = phase.backbone_stages, 0, machine.now
        step = step_images(config, phase.stage)
        while samples < epoch_images(config, epoch, images):
            size = min(step, epoch_images(config, epoch, images) - samples)
            machine.spend(size * machine.per_image[phase.kind])
            samples += size
            if epoch + 1 == config.train.epochs:
                config = fitting.with_part(config, Position(epoch, samples, stages), machine.now, 0.0)
            if machine.now > seconds - machine.saving:
                return Ended(machine.now, config, changes, stopped=True)
        fitting.note_training(phase.kind, machine.now - began, samples, machine.now)
        machine.spend(machine.validation)
        epoch += 1
        fitting.note_epoch(machine.now, machine.saving)
        if epoch < config.train.epochs:
            before = config
            config = fitting.refitted(config, Position(epoch, 0, stages), machine.now, 0.0)
            changes += config.train.epochs != before.train.epochs
        machine.spend(machine.saving)
    machine.spend(machine.closing)
    return Ended(machine.now + 0.5, config, changes, stopped=False)  # the process has to exit
