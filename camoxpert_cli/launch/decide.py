"""Decide everything that is fixed before a run's first step, once for all of its processes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint
from camoxpert_cli.checkpoints.init_from import with_architecture
from camoxpert_cli.config.diff import keep_preset_batches
from camoxpert_cli.config.lr_scaling import lr_scaling_warning
from camoxpert_cli.config.parse import parse_duration, parse_sessions
from camoxpert_cli.config.resolve import Resolved, to_mapping, with_absolute_paths
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.engine.strategy_choice import Choice
from camoxpert_cli.engine.tensorboard import summary_writer
from camoxpert_cli.engine.time_limit import find_deadline, process_start
from camoxpert_cli.engine.tracker import ready_wandb
from camoxpert_cli.launch import autobatch
from camoxpert_cli.parallel import worker
from camoxpert_cli.parallel.device import Placement, is_undecided, own_device, place, refuse_shared_gpus, with_count
from camoxpert_cli.parallel.world import World, expected_size
from camoxpert_cli.run_folder import RunFolder, default_path


def decide(resolved: Resolved, checkpoint: Checkpoint | None = None, began: float | None = None) -> Plan:
    """Make the plan of a run with these settings that starts from `checkpoint` or the file in `run.resume_from`.

    On GPUs, memory and strategies are tried in separate processes. Processes started by torchrun try nothing yet: see
    `agree`. Time limits count from `began`, in seconds of `time.monotonic`, or from the start of this process.
    Raises CamoxError.
    """
    run = resolved.config.run
    as_given = None if checkpoint is not None else to_mapping(given(resolved.config))
    if checkpoint is None and resolved.config.model.init_from is not None:
        resolved = with_architecture(resolved)
    source = checkpoint.path if checkpoint is not None else None if run.resume_from is None else Path(run.resume_from)
    folder = Path(run.checkpoint_dir) if run.checkpoint_dir else default_path(name_for(resolved, checkpoint))
    if checkpoint is None and source is not None and source.is_dir():
        read_checkpoint(source)  # raises: a run folder is for camox resume
    data = resolved.config.data
    model = resolved.config.model
    folders = [*data.dataset_path, *data.images, *data.masks, *data.negatives]
    inputs = [resolved.preset, *folders, model.backbone_weights, model.init_from]
    RunFolder(folder).refuse_other_run(source, [each for each in inputs if each])
    time_limit, session_limit = (
        None if text is None else parse_duration(text) for text in (run.time_limit, run.session_limit)
    )
    began = process_start(os.getpid()) if began is None else began
    fit = None if resolved.config.train.fit is None else parse_sessions(resolved.config.train.fit)
    deadline = find_deadline(time_limit, session_limit, began, fit)
    fits_since = began if fit is not None and checkpoint is None else None
    placement = place(run, expected_size(), sync_batchnorm=resolved.config.train.sync_batchnorm)
    if run.tensorboard:
        summary_writer()  # fails before minutes of trials
    if run.tracker == "wandb" and worker.is_first():
        ready_wandb()
    # config.yaml must lead back to this folder, not to the checkpoint that this session began with, and must not
    # depend on the current folder. The strategy stays `auto`, because the run may be resumed elsewhere.
    config = replace(
        resolved.config,
        run=replace(with_count(run, placement), checkpoint_dir=str(folder), resume_from=None, continue_=None),
        data=with_absolute_paths(resolved.config.data),
    )
    resolved = keep_preset_batches(replace(resolved, config=config))
    if worker.is_first() and (warning := lr_scaling_warning(resolved)) is not None:
        console.warn(console.filled(warning, indent=4, width=120))
    choice = None
    if not autobatch.is_measured(placement.devices[0]):
        autobatch.refuse_auto_on_cpu(resolved)
    elif not worker.is_worker():
        resolved = autobatch.fit_batches(resolved, autobatch.on_devices(placement.devices))
    if not worker.is_worker():
        choice = _choose(resolved, placement, checkpoint)
        if choice is not None:
            placement = replace(placement, strategy=choice.strategy)
    saves_first = bool(run.continue_)
    return Plan(resolved.config, folder, source, placement, choice, deadline, as_given, fits_since, saves_first)


def given(config: Config) -> Config:
    """Return the settings with absolute paths, by which a run is recognized when its command is run again."""
    run = replace(config.run, resume_from=_absolute(config.run.resume_from))
    model = replace(config.model, init_from=_absolute(config.model.init_from))
    return replace(config, run=run, model=model, data=with_absolute_paths(config.data))


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def name_for(resolved: Resolved, checkpoint: Checkpoint | None) -> str | None:
    """Return the name for a run folder that was not given: the preset, or the folder of the run to be resumed."""
    return resolved.preset if checkpoint is None else checkpoint.path.absolute().parent.name


def agree(plan: Plan, resolved: Resolved, world: World) -> Plan:
    """Agree on the parts of the plan that all processes started by torchrun must share: batch sizes and run folder.

    Each process measures its own GPU, and all use the batch sizes that fit on every GPU. Paths are those of each
    process's own machine. `resolved` are the settings that this process's plan was made from. Raises DeviceError if two
    processes share a GPU.
    """
    device = own_device(plan.placement, world)
    refuse_shared_gpus(device, world)
    if autobatch.is_measured(device):
        own = autobatch.on_devices([device])
        fitted = autobatch.fit_batches(
            replace(resolved, config=plan.config),
            lambda config, limits: [each for one in world.all_gather(own(config, limits)) for each in one],
        )
        plan = replace(plan, config=fitted.config)
    folder = world.broadcast(plan.folder)
    run = replace(plan.config.run, checkpoint_dir=str(folder))
    return replace(plan, config=replace(plan.config, run=run), folder=folder)


def _choose(resolved: Resolved, placement: Placement, checkpoint: Checkpoint | None) -> Choice | None:
    """The strategy chosen by trials, if any are needed."""
    if not is_undecided(resolved.config.run, placement) or resolved.config.train.sync_batchnorm:
        return None  # synchronized BatchNorm requires ddp
    # Imports modules that a run without trials does not need.
    from camoxpert_cli.launch.auto_strategy import choose

    return choose(resolved.config, placement, None if checkpoint is None else checkpoint.path.parent)
