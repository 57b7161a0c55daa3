"""Runs that follow their time: simulated on machines whose speed changes while they go on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import Config, TrainConfig
from camoxpert_cli.engine.fit import Budget, Pace, Position
from camoxpert_cli.engine.fitting import Fitting
from tests.helpers.simulated_fit import Machine, simulate

QUICKSTART = resolve("quickstart", {}).config
STAGES = resolve("kaggle-1xT4", {}).config


def quickstart_machine(slowness: Callable[[float], float] = lambda now: 1.0) -> Machine:
    """As measured on two CPU cores."""
    return Machine({(2, 4): 8.3 / 400}, validation=0.7, saving=0.2, closing=3.0, slowness=slowness)


def gpu_machine(slowness: Callable[[float], float] = lambda now: 1.0) -> Machine:
    """A fast one, for an hour."""
    pace = {(1, 0): 0.03, (2, 1): 0.05, (2, 2): 0.07, (2, 4): 0.1}
    return Machine(pace, validation=5.0, saving=1.5, closing=60.0, slowness=slowness)


def noise(seed: int, spread: float, seconds: float) -> Callable[[float], float]:
    """A slowness around 1 that fluctuates by `spread` within about ten seconds."""
    draw, kept, value = np.random.default_rng(seed), np.exp(-0.1), 0.0
    values = []
    for each in draw.normal(size=int(2 * seconds)):
        value = kept * value + np.sqrt(1 - kept**2) * each
        values.append(float(np.exp(spread * value)))
    return lambda now: values[min(len(values) - 1, int(now))]


def test_a_steady_machine() -> None:
    """The run ends within 2.5 % of its time, and its length is never changed."""
    for recipe, images, machine, seconds in (
        (QUICKSTART, 400, quickstart_machine(), 120),
        (STAGES, 400, gpu_machine(), 3600),
    ):
        ended = simulate(recipe, images, machine, seconds)

        assert 0.975 * seconds <= ended.now <= seconds
        assert ended.changes == 0
        assert not ended.stopped


@pytest.mark.parametrize("seed", range(6))
def test_a_machine_that_fluctuates(seed: int) -> None:
    """A fifth faster or slower from one ten seconds to the next, it still ends in time, and at most 5 % early."""
    ended = simulate(QUICKSTART, 400, quickstart_machine(noise(seed, 0.2, 120)), 120)

    assert 0.95 * 120 <= ended.now <= 120
    assert not ended.stopped


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("at", [0.2, 0.6])
def test_a_machine_that_changes_for_good(factor: float, at: float) -> None:
    """Half or twice as fast from some point on, a run still ends in time, with more epochs or fewer."""
    seconds = 3600.0
    ended = simulate(STAGES, 400, gpu_machine(lambda now: 1.0 if now < at * seconds else factor), seconds)
    usual = simulate(STAGES, 400, gpu_machine(), seconds)

    assert 0.95 * seconds <= ended.now <= seconds
    assert (ended.config.train.epochs > usual.config.train.epochs) == (factor < 1)
    if at > 0.5:  # stage 1 was over by then
        assert ended.config.train.stage1_epochs == usual.config.train.stage1_epochs


def test_what_was_measured_wrong() -> None:
    """If training is half as fast as it was before the run, the first epoch corrects it, for every kind of phase."""
    ended = simulate(STAGES, 400, gpu_machine(lambda now: 0.5 if now < 30 else 1.0), 3600)
    usual = simulate(STAGES, 400, gpu_machine(), 3600)

    assert 0.95 * 3600 <= ended.now <= 3600
    assert ended.config.train.epochs == pytest.approx(usual.config.train.epochs, rel=0.05)


def fitting_of(between: float = 2.0, closing: float = 10.0) -> tuple[Fitting, Config]:
    """Of a run of 20 epochs of 100 images, at 0.1 s each."""
    recipe = Config(train=TrainConfig(epochs=20, stage1_epochs=0, batch_size=4, progressive_unfreeze=False))
    budget = Budget(1, session=300.0, end=300.0, startup=5.0)
    return Fitting(recipe, budget, Pace({(2, 4): 0.1}, between, closing), images=100), recipe


def test_small_differences_change_nothing() -> None:
    """A run that seems to end a little early or late stays as it is; otherwise it would change after each epoch."""
    fitting, config = fitting_of()
    left = fitting.budget.left(0.0, fitting.pace, 0.0)
    needed = 20 * (100 * 0.1 + 2) + 10
    same = [fitting.refitted(config, Position(), left - needed + late, 0.0) for late in (-4.5, 4.5)]
    other = [fitting.refitted(config, Position(), left - needed + late, 0.0) for late in (-8.0, 8.0)]

    assert same == [config, config]
    # An epoch takes 10 s and 2 s besides: of 8 s more, 6 are for images, and of 8 s less, all.
    assert [(each.train.epochs, each.train.last_epoch_images) for each in other] == [(21, 60), (20, 20)]


def test_end_is_as_slow_as_validation() -> None:
    """If validation and saving become slower, so does the expected end of the run, but half as slow again at most."""
    expected = []
    for between in (1.0, 2.0, 2.4, 20.0):
        fitting, _ = fitting_of()
        fitting.note_training((2, 4), seconds=10.0, images=100, now=50.0)
        fitting.note_epoch(50.0 + between - 0.5, pause=0.5)
        expected.append((fitting.pace.between, fitting.pace.closing))

    assert expected == [pytest.approx(each) for each in ((1.0, 10.0), (2.0, 10.0), (2.4, 12.0), (20.0, 15.0))]


def test_pace_is_a_mean_over_epochs() -> None:
    """The first epoch of a kind replaces what was measured, the next ones count as much as those before."""
    fitting, _ = fitting_of()
    paces = []
    for seconds in (20.0, 30.0, 40.0):
        fitting.note_training((2, 4), seconds, images=100, now=0.0)
        fitting.note_epoch(2.0, pause=0.0)
        paces.append(fitting.pace.per_image[(2, 4)])

    assert paces == pytest.approx([0.2, 0.25, 0.3])
