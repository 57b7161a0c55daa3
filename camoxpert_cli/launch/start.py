"""Where training begins: in this process, or in several that it starts and waits for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from camoxpert_cli import console
from camoxpert_cli.config.diff import keep_preset_batches
from camoxpert_cli.config.lr_scaling import rate_warning
from camoxpert_cli.config.parse import parse_duration
from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.data.cores import usable_cores
from camoxpert_cli.engine.choice import Choice
from camoxpert_cli.engine.tensorboard import summary_writer
from camoxpert_cli.launch import autobatch, processes
from camoxpert_cli.parallel import worker
from camoxpert_cli.parallel.determinism import deterministic
from camoxpert_cli.parallel.device import Placement, is_undecided, own_device, place, with_count
from camoxpert_cli.parallel.world import World, expected_size, joined

if TYPE_CHECKING:
    from camoxpert_cli.checkpoints.format import Checkpoint
    from camoxpert_cli.engine.outcome import Outcome
    from camoxpert_cli.run_folder import RunFolder

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
    with deterministic(resolved.config.train.deterministic):
        _start(resolved, command, checkpoint, source, as_json=as_json)


def _start(
    resolved: Resolved,
    command: Sequence[str],
    checkpoint: Checkpoint | None,
    source: Path | None,
    *,
    as_json: bool,
) -> None:
    placement = place(resolved.config.run, expected_size(), sync_batchnorm=resolved.config.train.sync_batchnorm)
    run = with_count(resolved.config.run, placement)
    if run.tensorboard:
        summary_writer()  # refuses before minutes of trials
    resolved = keep_preset_batches(replace(resolved, config=replace(resolved.config, run=run)))
    if worker.is_first() and (warning := rate_warning(resolved)) is not None:
        console.warn(console.filled(warning, indent=4, width=120))
    resolved = _within_memory(resolved, placement)
    choice = _choose(resolved, placement, checkpoint)
    if choice is not None:
        placement = replace(placement, strategy=choice.strategy)
    if placement.processes > 1 and not worker.is_worker():
        processes.launch(
            command,
            placement.processes,
            threads=max(1, usable_cores() // placement.processes),
            max_restarts=run.max_restarts,
            source=source,
        )
        return

    with joined(parse_duration(run.collective_timeout)) as world:
        if worker.is_worker() and not worker.is_launched():  # by torchrun: nobody has measured
            resolved = _within_memory_of_all(resolved, placement, world)
        _train(resolved, checkpoint, world, choice, as_json=as_json)


def _train(
    resolved: Resolved, checkpoint: Checkpoint | None, world: World, choice: Choice | None, *, as_json: bool
) -> None:
    """Train; where memory runs out go on once from the last checkpoint, with smaller batches.

    A rank that ran out is not where the others are, and no collective can tell them. So of several processes it ends,
    and the launcher starts all again.
    """
    # Loads what the process that only waits for others does without.
    from camoxpert_cli.engine.out_of_memory import OutOfMemory
    from camoxpert_cli.engine.train import train

    try:
        _print(train(resolved, checkpoint, world, choice), as_json=as_json)
        return
    except OutOfMemory as error:
        smaller = error.smaller
        if smaller is None:
            raise
        start_point = "from the last checkpoint" if error.folder.last.exists() else "from the beginning"
        kept = autobatch.kept_in_words(resolved.config, smaller)
        words = f"{start_point} with {autobatch.in_words(smaller)}, which {kept}"
        if worker.is_worker():
            worker.tell_remedy(words, {autobatch.HANDED_ON: autobatch.hand_on(smaller)})
            raise
        failed = error
    failed.let_go()
    console.warn(f"{failed.message}. Training starts again {words}; a second time ends it")
    config = autobatch.taken_on(resolved.config, autobatch.hand_on(smaller))
    config = replace(config, run=replace(config.run, checkpoint_dir=str(failed.folder.path)))
    again = train(replace(resolved, config=config), _saved(failed.folder) or checkpoint, world, choice)
    _print(again, as_json=as_json)


def _print(outcome: Outcome, *, as_json: bool) -> None:
    from camoxpert_cli.launch.print_outcome import print_outcome

    print_outcome(outcome, as_json=as_json)


def _saved(folder: RunFolder) -> Checkpoint | None:
    """What the run in `folder` saved last, where it did."""
    from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint

    return Checkpoint(folder.last, read_checkpoint(folder.last)) if folder.last.exists() else None


def _within_memory(resolved: Resolved, placement: Placement) -> Resolved:
    """The settings in batches that the GPUs hold: measured by the first process, told to those that it starts."""
    told = os.environ.get(autobatch.HANDED_ON)
    if worker.is_launched() and told is not None:
        return replace(resolved, config=autobatch.taken_on(resolved.config, told))
    os.environ.pop(autobatch.HANDED_ON, None)  # of a run that this process, a notebook, started before
    if not autobatch.is_measured(placement.devices[0]):
        autobatch.refuse_auto_on_cpu(resolved)
    elif not worker.is_worker():
        resolved = autobatch.fit(resolved, autobatch.on_devices(placement.devices))
        os.environ[autobatch.HANDED_ON] = autobatch.hand_on(resolved.config)
    return resolved


def _within_memory_of_all(resolved: Resolved, placement: Placement, world: World) -> Resolved:
    """The same for processes that nobody of ours started: each measures its own GPU, and all take what all hold."""
    device = own_device(placement, world)
    if not autobatch.is_measured(device):
        return resolved
    own = autobatch.on_devices([device])
    return autobatch.fit(
        resolved, lambda config, limits: [each for one in world.gather(own(config, limits)) for each in one]
    )


def _choose(resolved: Resolved, placement: Placement, checkpoint: Checkpoint | None) -> Choice | None:
    """What trials choose, where they have to; in a process that was started after them, what they chose."""
    if worker.is_worker():
        return Choice.from_text(os.environ.get(HANDED_ON, ""))
    os.environ.pop(HANDED_ON, None)  # of a run that this process, a notebook, started before
    if not is_undecided(resolved.config.run, placement) or resolved.config.train.sync_batchnorm:
        return None  # synchronised BatchNorm leaves ddp alone

    from camoxpert_cli.launch.auto_strategy import choose

    choice = choose(resolved.config, placement, None if checkpoint is None else checkpoint.path.parent)
    os.environ[HANDED_ON] = choice.to_text()
    return choice
