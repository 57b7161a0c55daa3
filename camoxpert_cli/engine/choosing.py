"""Fit the number of epochs to the time: before a run begins, after each epoch and, with the images, in the last one."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint
from camoxpert_cli.checkpoints.saved_settings import saved_settings
from camoxpert_cli.config.parse import Sessions, format_duration, parse_sessions
from camoxpert_cli.config.resolve import CHOSEN_BY_FIT, from_mapping, to_mapping
from camoxpert_cli.config.schema import SETTINGS, Config
from camoxpert_cli.engine.build import check_images
from camoxpert_cli.engine.fit import Budget, Position, longest, seconds_left, shortest, with_epochs, without_skipped
from camoxpert_cli.engine.fitting import Fitting
from camoxpert_cli.engine.measuring import measure
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.errors import Interrupted, TrainingError, UsageError

# Part of a session for which each kind of phase is measured, and seconds at most.
_SHARE, _MOST = 0.005, 30.0
# Enough epochs for every kind of phase to have some.
_MANY = 1000
# A session that is suggested is longer by this factor than the measurements say.
_SPARE = 1.05
_ROUND = 5  # seconds


def choose_epochs(plan: Plan, run: Run, checkpoint: Checkpoint | None) -> tuple[Plan, Fitting | None]:
    """Measure the pace of a run that has not begun, and return the plan with as many epochs as fit into its time.

    `run` has to be `renewed` afterwards, and the Fitting keeps its numbers of epochs up to date. A restarted process
    finds them in its checkpoint and keeps them: then there is no Fitting. Raises UsageError if not even the shortest
    run fits, or if `checkpoint` continues another run; Interrupted after a signal.
    """
    if checkpoint is not None and (checkpoint.training is not None or check_images(checkpoint, run.data, run.folder)):
        return replace(plan, config=_as_chosen_before(plan.config, checkpoint)), None
    assert plan.fits_since is not None
    budget = Budget(
        _sessions(plan.config).count,
        plan.deadline.end - plan.fits_since,
        plan.deadline.end,
        run.clock.now() - plan.fits_since,
    )
    console.say(f"Fit {plan.config.train.fit}: measuring the pace of this machine")
    recipe = without_skipped(replace(plan.config, train=replace(plan.config.train, last_epoch_images=None)))
    run.config = with_epochs(recipe, recipe, _MANY, Position())
    try:
        with run.clock:
            pace = measure(run, build_phases(run.config), min(_MOST, _SHARE * budget.session))
    finally:
        run.config = plan.config
    if isinstance(pace, Stop):
        message = f"{pace.reason} while the pace was measured, before the first epoch; nothing was saved"
        raise Interrupted(message, "run the same command again", pace.exit_code)
    reserve = run.clock.reserve
    fitting = Fitting(recipe, budget, pace, run.data.images_per_epoch, reserve.saving, reserve.pause)
    left = budget.left(run.clock.now(), pace, _unused(run))
    problem = run.world.broadcast(_too_short(plan, run, fitting, left))
    if problem is not None:
        raise problem
    config = longest(recipe, recipe, fitting.images, pace, left, Position())
    return replace(plan, config=run.world.broadcast(config)), fitting


def describe_fit(run: Run) -> list[str]:
    """Describe the numbers of epochs of a fitted run and when it is expected to end, one line each."""
    text, fitting = f"{run.config.train.fit}: {_describe_epochs(run.config, run.data.images_per_epoch)}", run.fitting
    if fitting is None:
        return [text, "chosen when the run was started"]
    if fitting.budget.sessions > 1:
        return [text, f"expected to end in session {fitting.budget.sessions}"]
    seconds = seconds_left(run.config, fitting.images, fitting.pace, Position())
    return [text, f"expected to end in {format_duration(seconds)}"]


def refit(run: Run) -> None:
    """Fit the epochs that are left to the time that is left. Every rank must call this, after each epoch."""
    fitting = run.fitting
    if fitting is None:
        return
    fitting.note_epoch(run.clock.now(), run.clock.reserve.pause)
    if not run.is_trained:
        config = fitting.refitted(run.config, _position(run), run.clock.now(), _unused(run))
        run.follow(run.world.broadcast(config))


def tell_fit(run: Run, before: Config) -> None:
    """Write and print what `refit` changed in the settings `before`, once they are in a checkpoint."""
    if run.fitting is None or (run.config == before and run.state.progress.epoch < run.config.train.epochs):
        return
    try:
        run.folder.write_settings(to_mapping(run.config))
    except TrainingError as error:
        console.warn(f"{error.message}; training continues")
    if run.config.train.epochs != before.train.epochs:
        console.say(f"Fitted to {before.train.fit}: now {_describe_epochs(run.config, run.fitting.images)}")


def refit_last(run: Run) -> None:
    """Fit the images of the last epoch, if the run is in it, to the time that is left. Every rank must call this."""
    fitting = run.fitting
    if fitting is not None and run.state.progress.epoch + 1 == run.config.train.epochs:
        config = fitting.with_part(run.config, _position(run), run.clock.now(), _unused(run))
        run.follow(run.world.broadcast(config))


def _unused(run: Run) -> float:
    """Seconds at the end of a session that stops the run: the reserve, and up to one step that would go into it."""
    return run.clock.reserve.seconds + run.clock.reserve.step


def _position(run: Run) -> Position:
    return Position(run.state.progress.epoch, run.state.progress.samples, run.state.backbone_stages or 0)


def _sessions(config: Config) -> Sessions:
    assert config.train.fit is not None
    return parse_sessions(config.train.fit)


def _describe_epochs(config: Config, images: int) -> str:
    train = config.train
    stages = [train.stage1_epochs, train.epochs - train.stage1_epochs]
    parts = f" ({' + '.join(map(str, stages))})" if all(stages) else ""
    text = f"{console.counted(train.epochs, 'epoch')}{parts}"
    if train.last_epoch_images is None or train.last_epoch_images >= images:
        return text
    return f"{text}, the last one with {train.last_epoch_images} of {images} images"


def _as_chosen_before(config: Config, checkpoint: Checkpoint) -> Config:
    """The settings with the numbers of epochs that were chosen when the run in the checkpoint was started."""
    before = from_mapping(*saved_settings(checkpoint))
    if before.train.fit != config.train.fit:
        limit = format_duration(_sessions(config).seconds)
        raise UsageError(
            f"{checkpoint.path} continues a run of {console.counted(before.train.epochs, 'epoch')}, and the number of "
            f"epochs can be fitted to {config.train.fit} only before a run begins",
            f"camox resume {shlex.quote(str(checkpoint.path))} --time-limit {limit}",
        )
    chosen = {SETTINGS[key].name: SETTINGS[key].of(before) for key in CHOSEN_BY_FIT}
    return replace(config, train=replace(config.train, **chosen))


def _too_short(plan: Plan, run: Run, fitting: Fitting, left: float) -> UsageError | None:
    """Why not even the shortest run fits into `left` seconds, if so."""
    least, spent = shortest(fitting.recipe, fitting.images), run.clock.now() - (plan.fits_since or 0.0)
    rest = seconds_left(least, fitting.images, fitting.pace, Position())
    if rest <= left:
        return None
    sessions = _sessions(plan.config)
    length = _SPARE * fitting.budget.needed(spent, rest, fitting.pace, _unused(run))
    needed = Sessions(sessions.count, math.ceil(length / _ROUND) * _ROUND)
    other = plan.deadline.end < (plan.fits_since or 0.0) + sessions.seconds
    return UsageError(
        f"{plan.deadline.name} is too short: on this machine, the shortest run of this kind, "
        f"{_describe_epochs(least, fitting.images)}, takes {needed}",
        f"{f'a later end than {plan.deadline.name}, and ' if other else ''}--fit {needed}",
    )
