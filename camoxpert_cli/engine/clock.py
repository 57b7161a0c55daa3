"""Decide whether a run stops early, because of a time limit or a signal; all ranks agree on it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from camoxpert_cli.console import Advance
from camoxpert_cli.engine.stopping import Stop, Stopping
from camoxpert_cli.engine.time_limit import Reserve
from camoxpert_cli.evaluation.score import Scoring
from camoxpert_cli.parallel.world import World


@dataclass
class Clock:
    """Time limit and signals of a run; a context manager that handles signals while it is entered."""

    stopping: Stopping
    reserve: Reserve
    world: World

    def now(self) -> float:
        """Return the time in seconds, on the scale of the deadline."""
        return self.stopping.now()

    def stop_before_step(self) -> Stop | None:
        """Return why no further step may start, if so; every rank must call this at the same point."""
        return self._agree(self.stopping.due(self.reserve.seconds))

    def stop_before_batch(self) -> Stop | None:
        """Return why no further batch may be scored, if so; every rank must call this at the same point."""
        return self._agree(self.stopping.due(self.reserve.to_save))

    def score(self, scoring: Scoring[Any], advance: Advance) -> Stop | None:
        """Score all images, reporting progress to `advance`; return why scoring stopped early, if it did."""
        with closing(iter(scoring)) as batches:
            for images in batches:
                advance(images, "")
                if (stop := self.stop_before_batch()) is not None:
                    return stop
        return None

    def _agree(self, stop: Stop | None) -> Stop | None:
        """Whatever stops one rank stops all, for the same reason."""
        if not int(self.world.all_reduce_max(torch.tensor([0 if stop is None else 1]))):
            return None
        # Ranks may differ in their reasons: a signal outranks the clock.
        reasons = [(each.exit_code, each.reason) for each in self.world.all_gather(stop) if each is not None]
        exit_code, reason = max(reasons)
        return Stop(reason, exit_code)

    def __enter__(self) -> Clock:
        self.stopping.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.__exit__(kind, error, trace)
