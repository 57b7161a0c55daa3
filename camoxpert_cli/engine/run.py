"""A training run and its preparation: whatever the user got wrong is found here."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Literal

import torch

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint, Progress, StartContent, checkpoint_bytes, read_checkpoint
from camoxpert_cli.checkpoints.init_from import initial_weights
from camoxpert_cli.checkpoints.load import load_weights
from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.checkpoints.program_layouts import CAMOX, layout_of
from camoxpert_cli.config.parse import Interval, parse_interval
from camoxpert_cli.config.resolve import to_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.cache import open_cache
from camoxpert_cli.data.cores import auto_workers, usable_cores
from camoxpert_cli.engine.build import RunData, build_network, check_images, open_data
from camoxpert_cli.engine.clock import Clock
from camoxpert_cli.engine.compiling import Compiling, may_compile
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.ending import early_stop, is_trained
from camoxpert_cli.engine.feed import Feed
from camoxpert_cli.engine.fitting import Fitting
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.plan import Plan
from camoxpert_cli.engine.reporter import Reporter
from camoxpert_cli.engine.saving import Saver
from camoxpert_cli.engine.stages import WHOLE_BACKBONE, Phase, keep_unfrozen
from camoxpert_cli.engine.state import TrainingState, set_trained
from camoxpert_cli.engine.step import TrainingStep
from camoxpert_cli.engine.stopping import Stopping
from camoxpert_cli.engine.time_limit import Deadline, Reserve
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.allocator import keep_freed_memory
from camoxpert_cli.parallel.device import Placement, own_device
from camoxpert_cli.parallel.onednn import keep_compiled_kernels
from camoxpert_cli.parallel.precision import build_scaler, choose_dtype
from camoxpert_cli.parallel.strategy import STRATEGIES, Strategy
from camoxpert_cli.parallel.worker import keep_log, tell_begun
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder

CLIP_NORM = 1.0
# The speed of a slow network disk, assumed until the first checkpoint is timed.
_DISK_BYTES_PER_SECOND = 50e6


@dataclass
class Run:
    """A prepared run: what was decided before its first step, and its parts, each of which owns its own state.

    Between `prepare` and `train.carry_out`, parts may be replaced to observe or steer a run without patching the
    package. The forward pass: `strategy.step`, a module with torch's hooks, or from the next phase on any other that
    returns a `StepOutput`. The update: `clip_norm`, `state.scaler`, `state.ema`. The time limit:
    `clock.stopping.deadline`. Writing to disk: `saver.write`, called on another thread.
    """

    config: Config
    folder: RunFolder
    data: RunData
    placement: Placement
    world: World
    dtype: torch.dtype | None
    strategy: Strategy
    state: TrainingState
    feed: Feed
    clock: Clock
    saver: Saver
    reporter: Reporter
    compiling: Compiling
    phases: list[Phase]
    save_every: Interval | None
    phase: Phase | None = None  # under way
    fitting: Fitting | None = None  # in the session that chooses the number of epochs
    skipped_in_a_row: int = 0  # consecutive steps whose gradients overflowed
    clip_norm: float = CLIP_NORM  # maximum gradient norm of a step

    @property
    def device(self) -> torch.device:
        """The device of this process's tensors."""
        return self.strategy.device

    @property
    def is_trained(self) -> bool:
        """Whether no epoch is left to train."""
        return is_trained(self.config, self.state.progress.epoch, self.state.progress.epoch_of_best)

    @property
    def early_stop(self) -> str | None:
        """Why the run has ended before its last epoch, if it has."""
        return early_stop(self.config, self.state.progress.epoch, self.state.progress.epoch_of_best)

    @property
    def next_phase(self) -> Phase | None:
        """The phase of the current epoch, or of the next one; None if no epoch is left."""
        if self.is_trained:
            return None
        return next(phase for phase in self.phases if phase.end > self.state.progress.epoch)

    @property
    def ends_in_time(self) -> bool:
        """Whether the number of epochs is kept such that the run ends before its deadline."""
        return self.fitting is not None and self.fitting.budget.sessions == 1

    def fit_to(self, fitting: Fitting | None) -> None:
        """Keep the number of epochs fitted to the time; if the run ends in this session, its end is planned for."""
        self.fitting = fitting
        self.clock.reserve.planned = self.ends_in_time
        if fitting is not None:
            self.clock.reserve.note_saving(fitting.saving)
            self.clock.reserve.note_pause(fitting.pause)

    def follow(self, config: Config) -> None:
        """Continue with other numbers of epochs; backbone stages that are already trained are not frozen again."""
        self.config = self.saver.config = config
        self.phases = keep_unfrozen(build_phases(config), self.state.progress.epoch, self.state.backbone_stages or 0)

    @property
    def last_good(self) -> str:
        """Where the last good weights are, in words."""
        if self.folder.last.exists():
            return f"the last good weights are in {self.folder.last}"
        return "no weights had been saved"


def prepare(
    plan: Plan, checkpoint: Checkpoint | None = None, world: World | None = None
) -> tuple[Run, Checkpoint | None]:
    """Prepare a run; return it and the checkpoint to resume from, if any, whose weights are already loaded.

    That is `checkpoint` if the caller has already read it, otherwise the plan's. The run folder is created once
    everything has been checked, or earlier to generate images in it. Raises CamoxError.
    """
    world = world or World()
    config, placement = plan.config, plan.placement
    if checkpoint is None and plan.checkpoint is not None:
        path = plan.checkpoint
        checkpoint = find_checkpoint(path) if path.is_dir() else Checkpoint(path, read_checkpoint(path))
    folder = RunFolder(plan.folder, writes=world.is_main)
    # Fails before images are searched for.
    choose_dtype(config.train.precision, own_device(placement, world), of_run=True)
    if checkpoint is not None and layout_of(checkpoint.content) is not CAMOX:
        folder.refuse_foreign(checkpoint.path)
    data = open_data(config.data, config.train.seed, folder, world)
    if checkpoint is not None:
        check_images(checkpoint, data, folder)
    network = _initial_network(config, checkpoint)
    folder.create()
    tell_begun()
    world.require_all()  # the folder exists on every rank
    keep_log(folder.path)
    folder.require_space(3 * checkpoint_bytes(network, config.train.use_ema))
    run = assemble(config, folder, data, network, placement, world, plan.deadline)
    run.saver.start = _start_of(plan, checkpoint)
    return run, checkpoint


def renewed(run: Run, plan: Plan, checkpoint: Checkpoint | None) -> Run:
    """Return a run from the plan as `prepare` does, with the images and loaders of `run`, whose time is over."""
    folder, data, feed, world = run.folder, run.data, run.feed, run.world
    vars(run).clear()  # the memory of its network and optimizer is free before there are others
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    network = _initial_network(plan.config, checkpoint, tells=False)
    made = assemble(plan.config, folder, data, network, plan.placement, world, plan.deadline, feed)
    made.saver.start = _start_of(plan, checkpoint)
    return made


def assemble(
    config: Config,
    folder: RunFolder,
    data: RunData,
    network: CamoXpert,
    placement: Placement,
    world: World,
    deadline: Deadline,
    feed: Feed | None = None,
) -> Run:
    """Assemble a run on this rank's device, with new loaders unless there is a `feed`.

    Raises DeviceError if the device does not support the dtype.
    """
    device = own_device(placement, world)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
        keep_compiled_kernels()
    dtype = choose_dtype(config.train.precision, device, of_run=True)
    step = TrainingStep(network, config.model.deep_supervision, dtype)
    # Before the EMA copies the network: a strategy may replace layers.
    strategy = STRATEGIES[placement.strategy](
        step,
        network,
        [device, *placement.devices[1:]],
        world,
        sync_batchnorm=config.train.sync_batchnorm,
    )
    state = TrainingState(
        network,
        Ema(network, config.train.ema_decay) if config.train.use_ema else None,
        build_scaler(dtype, device),
        Progress(epoch=config.train.stage1_epochs if config.train.skip_stage1 else 0),
    )
    feed = feed or Feed(
        config,
        data,
        None if data.generated else open_cache(config.data.cache, data.all_training, config.data.img_size),
        workers=_choose_workers(config.data.num_workers, world.local_size, on_gpu=device.type == "cuda"),
        devices=placement.count,
        pin_memory=device.type == "cuda",
        world=world,
    )
    size = checkpoint_bytes(network, config.train.use_ema)
    reserve = Reserve(size / _DISK_BYTES_PER_SECOND, len(data.validation))
    clock = Clock(Stopping(deadline), reserve, world)
    return Run(
        config=config,
        folder=folder,
        data=data,
        placement=placement,
        world=world,
        dtype=dtype,
        strategy=strategy,
        state=state,
        feed=feed,
        clock=clock,
        saver=Saver(folder, config, data, state, world, reserve, device, dtype, clock.now),
        reporter=Reporter(folder, data, state),
        compiling=may_compile(config, strategy, step, world),
        phases=build_phases(config),
        save_every=None if config.run.save_every is None else parse_interval(config.run.save_every),
    )


def enter_phase(run: Run, phase: Phase) -> None:
    """Freeze and unfreeze the backbone as `phase` requires."""
    before, run.phase = run.phase, phase
    if before is not None and before.kind == phase.kind:
        return
    if run.state.backbone_stages != phase.backbone_stages:
        set_trained(run.state, run.strategy, run.config, phase.backbone_stages)
    backbone = "backbone frozen"
    if phase.backbone_stages:
        backbone = f"training the last {phase.backbone_stages} of {WHOLE_BACKBONE} backbone stages"
    if phase.backbone_stages == WHOLE_BACKBONE:
        backbone = "training the whole backbone"
    epoch = max(phase.first, run.state.progress.epoch) + 1
    console.say(f"Epoch {epoch}: stage {phase.stage.number}, {backbone}")


def _initial_network(config: Config, checkpoint: Checkpoint | None, *, tells: bool = True) -> CamoXpert:
    if checkpoint is not None:
        network = build_network(config.model, config.train.seed, weights_follow=True)
        load_weights(network, checkpoint.content, checkpoint.path)
        return network
    initial = None if config.model.init_from is None else initial_weights(config.model)
    network = build_network(
        config.model, config.train.seed, weights_follow=initial is not None and initial.has_backbone
    )
    if initial is not None:
        initial.load(network)
        if tells:
            initial.report(network)
    return network


def _start_of(plan: Plan, checkpoint: Checkpoint | None) -> StartContent:
    """How the run was started: now, or as its checkpoint says."""
    config = to_mapping(plan.config)
    if plan.as_given is not None:
        return StartContent(plan.as_given, config)
    found = None if checkpoint is None else checkpoint.start
    return StartContent(config, config) if found is None else found


def _choose_workers(asked: int | Literal["auto"], ranks: int, *, on_gpu: bool) -> int:
    auto = auto_workers(ranks, on_gpu=on_gpu)
    if asked == "auto":
        return auto
    if asked * ranks > (cores := usable_cores()):
        console.warn(
            f"{asked * ranks} loader workers share {console.counted(cores, 'core')}; "
            f"--num-workers auto uses {auto}{' per process' if ranks > 1 else ''}"
        )
    return asked
