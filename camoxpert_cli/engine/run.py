"""What the parts of a training run share, and how it is made ready: whatever a user got wrong is found here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW

from camoxpert_cli import console
from camoxpert_cli.config.durations import Interval, parse_interval
from camoxpert_cli.config.load import Resolved
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.dataset import ScoringBatch, ScoringPictures, TrainingPictures
from camoxpert_cli.data.layouts import Pair
from camoxpert_cli.data.loader import PictureLoader, auto_workers, scoring_loader, training_loader
from camoxpert_cli.data.sampling import EpochBatches
from camoxpert_cli.engine.build import RunData, build_network, build_phases, open_data
from camoxpert_cli.engine.checkpoint import load_weights, read_checkpoint, weights_of
from camoxpert_cli.engine.device import choose_device
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.precision import build_scaler, choose_dtype
from camoxpert_cli.engine.stages import Phase, Stage
from camoxpert_cli.engine.step import TrainingStep
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.runs import RunFolder, default_path


@dataclass
class Progress:
    """Where a run stands; `last.pth` holds all of it."""

    epoch: int = 0  # complete epochs
    samples: int = 0  # pictures seen in the epoch under way
    loss_sum: float = 0.0  # of those pictures
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
    network: CamoXpert
    step: TrainingStep
    scaler: GradScaler
    ema: Ema | None
    phases: list[Phase]
    workers: int
    save_every: Interval | None
    progress: Progress
    optimizer: AdamW | None = None
    phase: Phase | None = None
    skipped_in_a_row: int = 0
    _stage: Stage | None = None
    _sampler: EpochBatches | None = None
    _training_loader: PictureLoader[tuple[Tensor, Tensor]] | None = None

    def training_batches(self, stage: Stage, epoch: int) -> PictureLoader[tuple[Tensor, Tensor]]:
        """Pictures and masks of `epoch` from where `progress` stands; the workers live as long as the stage."""
        if self._stage != stage or self._sampler is None or self._training_loader is None:
            seed = self.config.train.seed
            pictures = TrainingPictures(self.data.train, self.config.data.img_size, seed)
            self._stage = stage
            self._sampler = EpochBatches(len(pictures), stage.batch_size, seed)
            self._training_loader = training_loader(pictures, self._sampler, self.workers, self.device.type == "cuda")
        self._sampler.start_at(epoch, self.progress.samples)
        return self._training_loader

    def steps_per_epoch(self, stage: Stage) -> int:
        """Optimizer steps in an epoch of `stage`."""
        return math.ceil(len(self.data.train) / (stage.batch_size * self.config.train.accumulation_steps))

    @cached_property
    def validation_batches(self) -> PictureLoader[ScoringBatch]:
        """The held-out pictures."""
        return self.scoring_batches(self.data.validation)

    def scoring_batches(self, pairs: Sequence[Pair]) -> PictureLoader[ScoringBatch]:
        """Pictures and masks in the order of `pairs`."""
        pictures = ScoringPictures(pairs, self.config.data.img_size)
        return scoring_loader(pictures, self.config.train.batch_size, self.workers, self.device.type == "cuda")

    @property
    def scored_network(self) -> CamoXpert:
        """The network that is validated: the average where there is one."""
        return self.network if self.ema is None else self.ema.network


def prepare(resolved: Resolved) -> tuple[Run, dict[str, Any] | None]:
    """The run before its first step, and the checkpoint it shall go on from, if any, its weights loaded already.

    Raises CamoxError. The run folder is made when all is in order, or earlier for pictures to generate in it.
    """
    config = resolved.config
    resume_from = None if config.run.resume_from is None else Path(config.run.resume_from)
    folder = RunFolder(Path(config.run.checkpoint_dir) if config.run.checkpoint_dir else default_path(resolved.preset))
    folder.refuse_other_run(resume_from)
    # What config.yaml says must lead back to this folder, and not to the checkpoint this session began with.
    config = replace(config, run=replace(config.run, checkpoint_dir=str(folder.path), resume_from=None))
    device = choose_device(config.run.device, config.run.gpus)
    dtype = choose_dtype(config.train.precision, device)
    checkpoint = None if resume_from is None else read_checkpoint(resume_from)
    if resume_from is not None and checkpoint is not None and "network" not in checkpoint:
        folder.refuse_foreign(resume_from)
    data = open_data(config.data, config.train.seed, folder)
    network = build_network(config.model, config.train.seed, weights_follow=checkpoint is not None)
    if checkpoint is not None and resume_from is not None:
        load_weights(network, weights_of(checkpoint, ema=False), resume_from)
    network.to(device)
    folder.create()

    workers = config.data.num_workers
    run = Run(
        config=config,
        folder=folder,
        device=device,
        dtype=dtype,
        data=data,
        network=network,
        step=TrainingStep(network, config.model.deep_supervision, dtype).to(device),
        scaler=build_scaler(dtype, device),
        ema=Ema(network, config.train.ema_decay) if config.train.use_ema else None,
        phases=build_phases(config),
        workers=auto_workers() if workers == "auto" else workers,
        save_every=None if config.run.save_every is None else parse_interval(config.run.save_every),
        progress=Progress(epoch=config.train.stage1_epochs if config.train.skip_stage1 else 0),
    )
    return run, checkpoint


def announce(run: Run) -> None:
    """Say what is about to happen."""
    train, model = run.config.train, run.config.model
    where = "CPU" if run.device.type == "cpu" else torch.cuda.get_device_name(run.device)
    parameters = sum(parameter.numel() for parameter in run.network.parameters()) / 1e6
    average = f"average of the weights, decay {train.ema_decay:g}" if train.use_ema else "no average of the weights"
    lines = [
        f"Run folder       {run.folder.path}",
        f"Device           {where}, {run.dtype or torch.float32}, {run.workers} loader workers",
        f"Network          {model.backbone}, {model.num_experts} experts, {parameters:.2f} M parameters, {average}",
        f"Pictures         {len(run.data.train)} to train on, {len(run.data.validation)} held out for validation, "
        f"{sum(map(len, run.data.tests.values()))} in test sets, at {run.config.data.img_size} px",
    ]
    for stage in dict.fromkeys(phase.stage for phase in run.phases):
        total = stage.batch_size * train.accumulation_steps
        lines.append(
            f"Stage {stage.number}          epochs {stage.first + 1} to {stage.end}, learning rate {stage.lr:g}, batch "
            f"{stage.batch_size} per GPU x 1 GPU x {train.accumulation_steps} accumulation = {total} global"
        )
    if run.config.run.target_iou is not None:
        lines.append(f"Target           validation IoU {run.config.run.target_iou:g}")
    for line in lines:
        console.say(line)
