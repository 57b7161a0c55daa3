"""The remaining training time of a run, estimated from its complete epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from camoxpert_cli.engine.stages import Phase

# The median of as many recent epochs: neither the first one, which fills caches, nor an earlier machine counts.
_RECENT = 5


class Remaining(NamedTuple):
    """Seconds until the last epoch is complete; a lower bound if later epochs train more layers than those timed."""

    seconds: float
    is_lower_bound: bool


def remaining(
    phases: Sequence[Phase],
    history: Sequence[Mapping[str, Any]],
    epoch: int,
    *,
    share: float | None,
    spent: float,
    unseen: float = 0.0,
) -> Remaining | None:
    """Estimate the remaining time of a run in `epoch` (from 0); None if no epoch has been timed.

    `history` has a row per complete epoch, also of those to be repeated. A `share` (0..1) of the current epoch is
    complete; if that is unknown, None, `spent` seconds of it are. A share `unseen` of the last epoch is not trained.
    """
    phase = next((phase for phase in phases if phase.end > epoch), None)
    if phase is None:
        return Remaining(0.0, is_lower_bound=False)
    own = [row["seconds"] for row in history if phase.first < row["epoch"] <= phase.end]
    before = [row["seconds"] for row in history if row["epoch"] <= phase.first]
    times = sorted((own or before)[-_RECENT:])
    if not times:
        return None
    one = times[len(times) // 2]
    rest = max(0.0, one - spent) if share is None else (1 - share) * one
    grows = not own or any(each.first > epoch for each in phases)
    return Remaining(max(0.0, rest + (phases[-1].end - epoch - 1 - unseen) * one), grows)
