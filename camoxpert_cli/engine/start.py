"""Where training begins: in this process, or in several that it starts and waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from camoxpert_cli import launch
from camoxpert_cli.config.changes import keep_preset_batches
from camoxpert_cli.config.durations import parse_duration
from camoxpert_cli.config.load import Resolved
from camoxpert_cli.data.cores import usable_cores
from camoxpert_cli.engine.device import place, with_count
from camoxpert_cli.engine.world import expected_size, joined

if TYPE_CHECKING:
    from camoxpert_cli.engine.checkpoint import Checkpoint


def start(
    resolved: Resolved, command: Sequence[str], checkpoint: Checkpoint | None = None, source: Path | None = None
) -> None:
    """Train as `train` does. Where that takes several processes, each runs the `command` line of this one again.

    `source` is what `command` says to go on from, where it does. Raises CamoxError, and SystemExit where processes that
    were started have told what went wrong.
    """
    placement = place(resolved.config.run, expected_size())
    run = with_count(resolved.config.run, placement)
    resolved = keep_preset_batches(replace(resolved, config=replace(resolved.config, run=run)))
    if placement.strategy == "ddp" and not launch.is_worker():
        code = launch.launch(
            command,
            placement.count,
            threads=max(1, usable_cores() // placement.count),
            max_restarts=run.max_restarts,
            source=source,
        )
        if code:
            raise SystemExit(code)
        return

    # Loads what the process that only waits for others does without.
    from camoxpert_cli.engine.train import train

    with joined(parse_duration(run.collective_timeout)) as world:
        train(resolved, checkpoint, world)
