"""What the parts of a training run share, and how it is made ready: whatever a user got wrong is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint, CheckpointNotWritten, checkpoint_bytes, read_checkpoint
from camoxpert_cli.checkpoints.layouts import CAMOX, layout_of, weights_of
from camoxpert_cli.checkpoints.load import load_weights
from camoxpert_cli.config.parse import Interval, parse_duration, parse_interval
from camoxpert_cli.config.resolve import Resolved
from camoxpert_cli.config.schema import Config, DataConfig
from camoxpert_cli.console import Advance, Note
from camoxpert_cli.data.cache import PictureCache, open_cache
from camoxpert_cli.data.cores import auto_workers, usable_cores
from camoxpert_cli.data.dataset import ScoringBatch, ScoringPictures, TrainingPictures
from camoxpert_cli.data.loader import PictureLoader, scoring_loader, training_loader
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.sampling import EpochBatches
from camoxpert_cli.engine.build import RunData, build_network, build_phases, check_pictures, open_data
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.optimizer import build_optimizer
from camoxpert_cli.engine.stages import WHOLE_BACKBONE, Phase, Stage
from camoxpert_cli.engine.step import TrainingStep
from camoxpert_cli.engine.stopping import Stopped, Stopping
from camoxpert_cli.engine.tensorboard import Curves
from camoxpert_cli.engine.throughput import Pace
from camoxpert_cli.engine.time_limit import Deadline, Reserve, find_deadline
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.device import Placement, own_device, place, with_count
from camoxpert_cli.parallel.precision import build_scaler, choose_dtype
from camoxpert_cli.parallel.strategy import STRATEGIES, Strategy, StrategyName
from camoxpert_cli.parallel.worker import tell_run_folder
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder, default_path

# Until the first checkpoint shows better: what a slow network disk writes.
_DISK_BYTES_PER_SECOND = 50e6


@dataclass
class Progress:
    """Where a run stands; `last.pth` holds all of it."""

    epoch: int = 0  # complete epochs
    samples: int = 0  # pictures seen in the epoch under way
    loss_sum: float = 0.0  # of those pictures
    experts_chosen: list[list[float]] = field(default_factory=list)  # how many of them chose each, (L, E)
    skipped_steps: int = 0  # in the epoch under way: gradients overflowed
    epoch_seconds: float = 0.0  # spent in the epoch under way
    rate: float = 0.0  # of the last step
    best_iou: float = -1.0
    best_epoch: int = 0
    target_seconds: float | None = None  # into the run when validation IoU passed the target
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Spent in the run, over all its sessions."""
        return sum(row["seconds"] for row in self.history) + self.epoch_seconds


@dataclass
class Run:
    """A run in hand."""

    config: Config
    folder: RunFolder
    device: torch.device
    dtype: torch.dtype | None
    data: RunData
    cache: PictureCache | None
    network: CamoXpert
    step: TrainingStep
    scaler: GradScaler
    ema: Ema | None
    phases: list[Phase]
    workers: int
    save_every: Interval | None
    progress: Progress
    stopping: Stopping
    reserve: Reserve
    placement: Placement
    world: World
    strategy: Strategy
    optimizer: AdamW | None = None
    phase: Phase | None = None
    backbone_stages: int | None = None  # in training
    pace: Pace = field(default_factory=Pace)
    curves: Curves | None = None
    told_of_dead_experts: bool = False
    told: tuple[Phase, bool] | None = None  # the phase whose forecast was said, and whether it fitted the clock
    skipped_in_a_row: int = 0
    data_wait: float = 0.0  # share of the last epoch's training time that was spent waiting for pictures, 0..1
    saved_at: tuple[int, int] | None = None  # epoch and samples of what `last.pth` holds, where this session wrote it
    trusts_last: bool = False  # `last.pth` is whole: this session wrote it, or goes on from it
    unsaved: CheckpointNotWritten | None = None  # why the last attempt to save failed
    _stage: Stage | None = None
    _sampler: EpochBatches | None = None
    _training_loader: PictureLoader[tuple[Tensor, Tensor]] | None = None

    def training_batches(self, stage: Stage, epoch: int) -> tuple[PictureLoader[tuple[Tensor, Tensor]], list[int]]:
        """This rank's pictures and masks of `epoch` from where `progress` stands, and each batch's size over all ranks.

        The workers live as long as the stage.
        """
        if self._stage != stage or self._sampler is None or self._training_loader is None:
            seed = self.config.train.seed
            pictures = TrainingPictures(self.data.train, self.config.data.img_size, seed, self.cache)
            self._stage = stage
            per_process = stage.batch_size * self.placement.count // self.world.size
            self._sampler = EpochBatches(len(pictures), per_process, seed, self.world.rank, self.world.size)
            self._training_loader = training_loader(pictures, self._sampler, self.workers, self.device.type == "cuda")
        self._sampler.start_at(epoch, self.progress.samples)
        return self._training_loader, self._sampler.sizes()

    @cached_property
    def validation_batches(self) -> PictureLoader[ScoringBatch]:
        """The held-out pictures."""
        return self.scoring_batches(self.data.validation, self.cache)

    def scoring_batches(self, pairs: Sequence[Pair], cache: PictureCache | None = None) -> PictureLoader[ScoringBatch]:
        """Pictures and masks in the order of `pairs`, which `cache` holds where it is given."""
        pictures = ScoringPictures(pairs, self.config.data.img_size, cache)
        return scoring_loader(
            pictures,
            self.config.train.batch_size,
            self.workers,
            self.device.type == "cuda",
            self.world.rank,
            self.world.size,
        )

    @property
    def scored_network(self) -> CamoXpert:
        """The network that is validated: the average where there is one."""
        return self.network if self.ema is None else self.ema.network

    def or_stop(self, advance: Advance) -> Advance:
        """`advance` that then raises Stopped where the run has to end."""

        def advance_or_stop(count: int, note: Note) -> None:
            advance(count, note)
            self.check_stop(self.reserve.to_save)

        return advance_or_stop

    def check_stop(self, reserve: float) -> None:
        """Raise Stopped on all ranks where any of them has to end, keeping `reserve` seconds of the clock."""
        stop = self.stopping.due(reserve)
        if int(self.world.largest(torch.tensor([0 if stop is None else 1]))):
            # Ranks may differ in their reasons: a signal outranks the clock.
            reasons = [
                each for each in self.world.gather(None if stop is None else (stop.exit_code, stop.reason)) if each
            ]
            exit_code, reason = max(reasons)
            raise Stopped(reason, exit_code)

    @property
    def position(self) -> int:
        """Training pictures seen since the run began, and one more for each epoch that was closed."""
        return self.progress.epoch * (len(self.data.train) + 1) + self.progress.samples

    def record(self, event: str, **values: Any) -> None:
        """Write down what happened where the run stands: in metrics.jsonl, and as curves where they are wanted."""
        self.folder.log(event, **values)
        if self.curves is not None:
            self.curves.write(event, values, self.position)

    @property
    def computed_with(self) -> dict[str, str]:
        """What rounding depends on."""
        on_cpu = self.device.type == "cpu"
        device = f"CPU, threads {torch.get_num_threads()}" if on_cpu else torch.cuda.get_device_name(self.device)
        number_format = str(self.dtype or torch.float32).removeprefix("torch.")
        return {"device": device, "number format": number_format, "version": f"torch {torch.__version__}"}


def prepare(
    resolved: Resolved,
    checkpoint: Checkpoint | None = None,
    world: World | None = None,
    strategy: StrategyName | None = None,
) -> tuple[Run, Checkpoint | None]:
    """The run before its first step, and the checkpoint it shall go on from, if any, its weights loaded already.

    That is `checkpoint`, or the one that `run.resume_from` names. Raises CamoxError. The run folder is made when all is
    in order, or earlier for pictures to generate in it.
    """
    world = world or World()
    config = resolved.config
    if checkpoint is None and config.run.resume_from is not None:
        checkpoint = Checkpoint(Path(config.run.resume_from), read_checkpoint(Path(config.run.resume_from)))
    path = Path(config.run.checkpoint_dir) if config.run.checkpoint_dir else default_path(resolved.preset)
    folder = RunFolder(world.from_main(path), writes=world.is_main)
    folder.refuse_other_run(None if checkpoint is None else checkpoint.path)
    # What config.yaml says must lead back to this folder, and not to the checkpoint this session began with, nor
    # depend on where this one was started.
    config = replace(
        config,
        run=replace(config.run, checkpoint_dir=str(folder.path), resume_from=None),
        data=with_absolute_paths(config.data),
    )
    deadline = find_deadline(
        *(None if text is None else parse_duration(text) for text in (config.run.time_limit, config.run.session_limit))
    )
    # The settings keep `auto`, for the run may go on elsewhere.
    placement = place(
        config.run if strategy is None else replace(config.run, strategy=strategy),
        world.size,
        sync_batchnorm=config.train.sync_batchnorm,
    )
    config = replace(config, run=with_count(config.run, placement))
    # Refuse before pictures are looked for.
    choose_dtype(config.train.precision, own_device(placement, world))
    if checkpoint is not None and layout_of(checkpoint.content) is not CAMOX:
        folder.refuse_foreign(checkpoint.path)
    data = open_data(config.data, config.train.seed, folder, world)
    if checkpoint is not None:
        check_pictures(checkpoint.content, data, checkpoint.path)
    network = build_network(config.model, config.train.seed, weights_follow=checkpoint is not None)
    if checkpoint is not None:
        load_weights(network, weights_of(checkpoint.content, ema=False), checkpoint.path)
    folder.create()
    tell_run_folder(folder.path)
    folder.require_space(3 * checkpoint_bytes(network, config.train.use_ema))
    return assemble(config, folder, data, network, placement, world, deadline), checkpoint


def assemble(
    config: Config,
    folder: RunFolder,
    data: RunData,
    network: CamoXpert,
    placement: Placement,
    world: World,
    deadline: Deadline,
) -> Run:
    """Everything on this rank's device, before the first step. Raises DeviceError where it lacks the number format."""
    device = own_device(placement, world)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dtype = choose_dtype(config.train.precision, device)
    step = TrainingStep(network, config.model.deep_supervision, dtype)
    # Before the average is copied: a strategy may change the network's layers.
    strategy = STRATEGIES[placement.strategy](
        step,
        network,
        [device, *placement.devices[1:]],
        world,
        sync_batchnorm=config.train.sync_batchnorm,
    )
    size = checkpoint_bytes(network, config.train.use_ema)
    return Run(
        config=config,
        folder=folder,
        device=device,
        dtype=dtype,
        data=data,
        cache=None if data.generated else open_cache(config.data.cache, data.all_training, config.data.img_size),
        network=network,
        step=step,
        strategy=strategy,
        placement=placement,
        world=world,
        scaler=build_scaler(dtype, device),
        ema=Ema(network, config.train.ema_decay) if config.train.use_ema else None,
        phases=build_phases(config),
        workers=_choose_workers(config.data.num_workers, world.local_size),
        save_every=None if config.run.save_every is None else parse_interval(config.run.save_every),
        progress=Progress(epoch=config.train.stage1_epochs if config.train.skip_stage1 else 0),
        stopping=Stopping(deadline),
        reserve=Reserve(size / _DISK_BYTES_PER_SECOND, len(data.validation)),
    )


def enter_phase(run: Run, phase: Phase) -> None:
    """Freeze and unfreeze what `phase` says."""
    if run.phase == phase:
        return
    run.phase = phase
    if run.backbone_stages != phase.backbone_stages:
        set_trained(run, phase.backbone_stages)
    trained = (
        f"the last {phase.backbone_stages} of its {WHOLE_BACKBONE} stages train" if phase.backbone_stages else "frozen"
    )
    epoch = max(phase.first, run.progress.epoch) + 1
    console.say(f"Epoch {epoch}: stage {phase.stage.number}, backbone: {trained}")


def set_trained(run: Run, backbone_stages: int) -> None:
    """Train the last `backbone_stages` of the backbone; make wrapper and optimizer anew over them, as one act."""
    run.network.set_trainable(backbone_stages, deep_heads=run.config.model.deep_supervision)
    run.optimizer = build_optimizer(
        run.network,
        weight_decay=run.config.train.weight_decay,
        backbone_lr_factor=run.config.train.backbone_lr_factor,
        previous=run.optimizer,
    )
    run.strategy.wrap()
    run.backbone_stages = backbone_stages


def _choose_workers(asked: int | Literal["auto"], ranks: int) -> int:
    if asked == "auto":
        return auto_workers(ranks)
    if asked * ranks > (cores := usable_cores()):
        console.warn(
            f"{asked * ranks} processes will load pictures and take turns on {cores} core{'s' if cores > 1 else ''}; "
            f"--num-workers auto takes {auto_workers(ranks)}"
        )
    return asked


def with_absolute_paths(data: DataConfig) -> DataConfig:
    """The same folders, wherever the program is started."""
    return replace(
        data,
        dataset_path=_absolute(data.dataset_path),
        images=_absolute(data.images),
        masks=_absolute(data.masks),
        cache=_absolute([data.cache])[0] if data.cache not in ("auto", "off") else data.cache,
    )


def _absolute(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(Path(path).expanduser().absolute()) for path in paths)
