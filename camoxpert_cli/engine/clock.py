"""Whether a run has to end before it is complete: the clock or a signal, on which all ranks agree."""

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
    """Listens to signals while it is entered."""

    stopping: Stopping
    reserve: Reserve
    world: World

    def stop_before_step(self) -> Stop | None:
        """Why there shall be no further step; every rank asks this at once."""
        return self._agree(self.stopping.due(self.reserve.seconds))

    def stop_before_batch(self) -> Stop | None:
        """Why no further batch shall be scored; every rank asks this at once."""
        return self._agree(self.stopping.due(self.reserve.to_save))

    def score(self, scoring: Scoring[Any], advance: Advance) -> Stop | None:
        """Score to the end, and tell `advance` how far it is; returns why not all were scored, where that is so."""
        with closing(iter(scoring)) as batches:
            for images in batches:
                advance(images, "")
                if (stop := self.stop_before_batch()) is not None:
                    return stop
        return None

    def _agree(self, stop: Stop | None) -> Stop | None:
        """What ends any rank ends all, for the same reason."""
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
