"""Keep the number of epochs fitted to the time while a run goes on: its pace is not quite what was measured before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.fit import Budget, Pace, Position, longest, seconds_left, with_part
from camoxpert_cli.engine.stages import Kind

# Part of the remaining time by which a run may seem too long or too short without being changed.
_TOLERANCE = 0.02
# The pace is the mean over this many epochs, so that a run neither follows every fluctuation nor misses a change.
_EPOCHS = 8
# The end of the run is estimated to be slower than measured as validation is, up to this factor.
_SLOWER = 1.5


@dataclass
class Fitting:
    """The fit of a run in the session that started it: `recipe` has the proportions, `measured` the pace before it.

    `images` is the number of training images, `saving` the seconds to write `last.pth` as measured before, `pause` the
    part of them for which training waits. Times are those of the run's clock.
    """

    recipe: Config
    budget: Budget
    measured: Pace
    images: int
    saving: float = 0.0
    pause: float = 0.0

    def __post_init__(self) -> None:
        self.pace = self.measured
        self._kind: Kind | None = None
        self._per_image = 0.0
        self._trained_at = 0.0
        self._observed: Counter[Kind] = Counter()

    def note_training(self, kind: Kind, seconds: float, images: int, now: float) -> None:
        """Record that the training of an epoch, over `images` images, took `seconds` and ended `now`."""
        self._kind, self._per_image, self._trained_at = kind, seconds / images, now

    def note_epoch(self, now: float, pause: float) -> None:
        """Record that an epoch is complete `now`, but for `pause` seconds, and from then on expect its pace."""
        assert self._kind is not None
        self._observed[self._kind] += 1
        weight = 1 / min(self._observed[self._kind], _EPOCHS)
        pace = self.pace.following(self._kind, self._per_image, now - self._trained_at + pause, weight)
        slower = min(max(1.0, pace.between / self.measured.between), _SLOWER)
        self.pace = replace(pace, closing=slower * self.measured.closing)

    def refitted(self, config: Config, at: Position, now: float, unused: float) -> Config:
        """Return the settings with which the run ends in time from position `at` on: `config` if it does, roughly."""
        left = self.budget.left(now, self.pace, unused)
        if abs(seconds_left(config, self.images, self.pace, at) - left) <= _TOLERANCE * max(0.0, left):
            return config
        return longest(self.recipe, config, self.images, self.pace, left, at)

    def with_part(self, config: Config, at: Position, now: float, unused: float) -> Config:
        """Return `config` with as many images in the last epoch, in which the run is, as there is time for."""
        left = self.budget.left(now, self.pace, unused)
        return with_part(config, self.images, self.pace, left, at)
