"""Where training begins: in this process, or in several that it starts and waits for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from camoxpert_cli import console, launch
from camoxpert_cli.config.changes import keep_preset_batches
from camoxpert_cli.config.durations import parse_duration
from camoxpert_cli.config.load import Resolved
from camoxpert_cli.config.proportion import rate_warning
from camoxpert_cli.data.cores import usable_cores
from camoxpert_cli.engine.choice import Choice
from camoxpert_cli.engine.device import Placement, is_undecided, place, with_count
from camoxpert_cli.engine.tensorboard import summary_writer
from camoxpert_cli.engine.world import expected_size, joined

if TYPE_CHECKING:
    from camoxpert_cli.engine.checkpoint import Checkpoint

# Where the processes that are started after a choice of strategy find it.
HANDED_ON = "CAMOX_STRATEGY"


def start(
    resolved: Resolved,
    command: Sequence[str],
    checkpoint: Checkpoint | None = None,
    source: Path | None = None,
    *,
    as_json: bool = False,
) -> None:
    """Train as `train` does. Where that takes several processes, each runs the `command` line of this one again.

    `source` is what `command` says to go on from, where it does. Raises CamoxError, also that of a process it started.
    """
    placement = place(resolved.config.run, expected_size())
    run = with_count(resolved.config.run, placement)
    if run.tensorboard:
        summary_writer()  # refuses before minutes of trials
    resolved = keep_preset_batches(replace(resolved, config=replace(resolved.config, run=run)))
    if launch.is_first() and (warning := rate_warning(resolved)) is not None:
        console.warn(warning)
    choice = _choose(resolved, placement, checkpoint)
    if choice is not None and choice.strategy == "dp":
        placement = replace(placement, strategy="dp")
    if placement.strategy == "ddp" and not launch.is_worker():
        launch.launch(
            command,
            placement.count,
            threads=max(1, usable_cores() // placement.count),
            max_restarts=run.max_restarts,
            source=source,
        )
        return

    # Loads what the process that only waits for others does without.
    from camoxpert_cli.engine.train import train

    with joined(parse_duration(run.collective_timeout)) as world:
        train(resolved, checkpoint, world, choice, as_json=as_json)


def _choose(resolved: Resolved, placement: Placement, checkpoint: Checkpoint | None) -> Choice | None:
    """What trials choose, where they have to; in a process that was started after them, what they chose."""
    if launch.is_worker():
        return Choice.from_text(os.environ.get(HANDED_ON, ""))
    os.environ.pop(HANDED_ON, None)  # of a run that this process, a notebook, started before
    if not is_undecided(resolved.config.run, placement):
        return None

    from camoxpert_cli.engine.auto_strategy import choose

    choice = choose(resolved.config, placement, None if checkpoint is None else checkpoint.path.parent)
    os.environ[HANDED_ON] = choice.to_text()
    return choice
