"""Every setting of a run: its type, default, bounds and help, one frozen dataclass a section.

A setting's flag is its own name (`train.stage2_lr` is `--stage2-lr`), so names are unique over all sections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from camoxpert_cli.config.parse import parse_cache, parse_devices, parse_duration, parse_interval

Scheduler = Literal["cosine", "onecycle", "cosine_restart", "none"]
Strategy = Literal["auto", "single", "dp", "ddp"]
Device = Literal["auto", "cuda", "cpu"]

# Of a picture, in pixels: the network's coarsest maps have a pixel for 32 of it.
SMALLEST_SIDE, LARGEST_SIDE = 64, 4096
# Of what is counted and has no bound of its own: far above what anybody trains with, and where a typing error would
# fill the memory or the disk.
MOST_COUNTED = 1_000_000


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    parse: Callable[[str], object] | None = None,
    original: str = "",
    stands_for: str = "",
    fitted: bool = False,
) -> Any:
    """A dataclass field that also knows its help, its bounds (inclusive) and the original program's default.

    `parse` checks a text value: it raises ValueError with what was expected. `stands_for` is the word for a value in
    the help. For a `fitted` one a command line may say auto: the value is then what the GPUs' memory holds.
    """
    metadata = {
        "help": help,
        "low": low,
        "high": high,
        "parse": parse,
        "original": original,
        "stands_for": stands_for,
        "fitted": fitted,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    backbone: str = setting("edgenext_base", "timm model with maps at strides 4, 8, 16 and 32", stands_for="NAME")
    num_experts: int = setting(7, "experts in each mixture layer", low=1, high=64)
    pretrained: bool = setting(True, "start the backbone from ImageNet weights")
    backbone_weights: str | None = setting(
        None, "file with backbone weights (.pth or .safetensors), no network needed", stands_for="FILE"
    )
    deep_supervision: bool = setting(True, "train the three side outputs of the decoder too", original="off")
    gradient_checkpointing: bool = setting(False, "compute activations twice to save memory")


@dataclass(frozen=True)
class DataConfig:
    dataset_path: tuple[str, ...] = setting(
        (), "data set folder, or a list that check-data wrote; repeat it for several", stands_for="DIR"
    )
    images: tuple[str, ...] = setting(
        (), "folder of training pictures, whatever it is called; with --masks", stands_for="DIR"
    )
    masks: tuple[str, ...] = setting((), "the folder of their masks", stands_for="DIR")
    val_images: tuple[str, ...] = setting(
        (),
        "folder of pictures to validate on, in place of some held out of the training pictures; with --val-masks",
        stands_for="DIR",
    )
    val_masks: tuple[str, ...] = setting((), "the folder of their masks", stands_for="DIR")
    include_noncam: bool = setting(False, "take COD10K's NonCAM pictures too, which show nothing camouflaged")
    cache: Literal["auto", "off"] | str = setting(
        "auto",
        "folder for resized pictures; auto takes ~/.cache/camox where there is room, off reads files anew",
        parse=parse_cache,
        stands_for="DIR",
    )
    img_size: int = setting(
        320, "side in pixels that pictures are resized to", low=SMALLEST_SIDE, high=LARGEST_SIDE, original="384"
    )
    val_fraction: float = setting(
        0.1,
        "part of the training pictures held out for validation, where none are given for it",
        low=0.001,
        high=0.9,
    )
    num_workers: int | Literal["auto"] = setting(
        "auto",
        "processes that load pictures; auto asks the cores this process may use",
        low=0,
        high=256,
        original="4",
    )
    generated_pictures: int = setting(0, "generate this many training pictures where no data set is given", low=0)


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = setting(140, "epochs of both stages together", low=1, original="120")
    stage1_epochs: int = setting(30, "epochs with the backbone frozen", low=0)
    batch_size: int = setting(
        8,
        "pictures a step on each GPU; auto takes what its memory holds, at the same pictures a step in all",
        low=1,
        original="2, split over all GPUs",
        fitted=True,
    )
    stage2_batch_size: int | None = setting(
        None, "the same for stage 2; half of --batch-size if not given", low=1, fitted=True
    )
    accumulation_steps: int = setting(1, "batches whose gradients make one optimizer step", low=1, original="4")
    lr: float = setting(6.5e-4, "learning rate of stage 1", low=0.0, original="0.00025")
    stage2_lr: float | None = setting(None, "learning rate of stage 2; --lr if not given", low=0.0)
    backbone_lr_factor: float = setting(0.1, "the backbone learns at this part of the rate", low=0.0, high=1.0)
    weight_decay: float = setting(1e-4, "AdamW's weight decay", low=0.0)
    scheduler: Scheduler = setting("cosine", "how the learning rate falls within a stage", original="onecycle")
    min_lr: float = setting(1e-6, "learning rate at the end of a schedule", low=0.0)
    warmup_epochs: int = setting(0, "epochs over which the rate rises at the start of stage 2", low=0)
    t_mult: int = setting(2, "each cycle of cosine_restart is this many times longer than the one before", low=1)
    progressive_unfreeze: bool = setting(
        True, "stage 2 unfreezes the backbone in three steps, last layers first", original="off"
    )
    skip_stage1: bool = setting(False, "start with stage 2")
    use_ema: bool = setting(True, "validate and keep a moving average of the weights", original="off")
    ema_decay: float = setting(0.999, "part of the average kept at each step", low=0.0, high=1.0)
    sync_batchnorm: bool = setting(
        False, "BatchNorm normalises in training with the pictures of all GPUs; for strategy ddp"
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = setting(
        "auto",
        "number format; auto takes bf16 where the GPU has it, fp16 on other GPUs, fp32 on the CPU",
        original="fp16",
    )
    deterministic: bool = setting(
        False,
        "use deterministic algorithms only, which are slower: on GPUs too, a repeated or resumed run then gives the "
        "same bits",
    )
    seed: int = setting(42, "drives order, augmentation, dropout and initial weights", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class RunConfig:
    checkpoint_dir: str | None = setting(None, "folder of the run; runs/<preset>-<time> if not given", stands_for="DIR")
    resume_from: str | None = setting(
        None, "checkpoint to go on from: camox's own or the original program's", stands_for="FILE"
    )
    device: Device = setting("auto", "where to compute", original="cuda")
    gpus: int | Literal["all"] | None = setting(
        None,
        "number of GPUs, or of processes with --device cpu; one where there is any, if not given",
        low=1,
        high=1024,
    )
    devices: str | None = setting(
        None, "the GPUs to take by their numbers, such as 0,2", parse=parse_devices, stands_for="N,N"
    )
    strategy: Strategy = setting(
        "auto",
        "how several GPUs work together: ddp is a process for each, dp one process; auto tries both on two or three "
        "GPUs and takes ddp on more",
    )
    max_restarts: int = setting(
        0, "start again from the last checkpoint so many times where a process crashes", low=0, high=1000
    )
    collective_timeout: str = setting(
        "10m",
        "how long the processes of a run wait for one of them before they give up",
        parse=parse_duration,
        stands_for="TIME",
    )
    target_iou: float | None = setting(None, "say when validation IoU passes this value", low=0.0, high=1.0)
    save_every: str | None = setting(
        "10m",
        "also save within an epoch: 30s, 10m, 1h, or a number of optimizer steps",
        parse=parse_interval,
        stands_for="TIME|N",
    )
    time_limit: str | None = setting(
        None,
        "end, saved, within this time from the start of camox, such as 11h30m",
        parse=parse_duration,
        stands_for="TIME",
    )
    session_limit: str | None = setting(
        None,
        "the same from the start of the machine's session, such as 12h on Kaggle",
        parse=parse_duration,
        stands_for="TIME",
    )
    report: bool = setting(True, "write report.html and curves.png when the run ends")
    tensorboard: bool = setting(False, "write curves for TensorBoard into the run folder too")


@dataclass(frozen=True)
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def stage2_rate(self) -> float:
        """Stage 2's learning rate: stage 1's where none is given."""
        return self.train.lr if self.train.stage2_lr is None else self.train.stage2_lr

    @property
    def stage2_batch_size(self) -> int:
        """Stage 2's images per GPU: half of stage 1's, at least one, where none is given."""
        given = self.train.stage2_batch_size
        return max(1, self.train.batch_size // 2) if given is None else given

    @property
    def gpu_count(self) -> int:
        """Devices that work together, one where none is asked for. "all" has been counted before this is asked."""
        assert self.run.gpus != "all"
        return self.run.gpus or 1

    @property
    def global_batches(self) -> tuple[int, int]:
        """Images of an optimizer step over all GPUs, in stage 1 and in stage 2."""
        devices = self.train.accumulation_steps * self.gpu_count
        return self.train.batch_size * devices, self.stage2_batch_size * devices


@dataclass(frozen=True)
class Setting:
    """One row of the schema: where a setting lives and what it accepts."""

    section: str
    name: str
    type: Any
    default: Any
    help: str
    low: float | None
    high: float | None
    parse: Callable[[str], object] | None
    original: str
    stands_for: str
    fitted: bool

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_path(self) -> bool:
        return self.stands_for in ("DIR", "FILE")


def all_settings() -> dict[str, Setting]:
    """Every setting under its dotted key, in the order in which the schema writes them."""
    settings = {}
    for section_name, section in SECTIONS.items():
        types = get_type_hints(section)
        for item in fields(section):
            kind = types[item.name]
            row = Setting(section_name, item.name, kind, item.default, **item.metadata)
            if row.high is None and int in (kind, *get_args(kind)):
                row = replace(row, high=MOST_COUNTED)
            settings[row.key] = row
    return settings


SECTIONS: dict[str, Any] = get_type_hints(Config)
SETTINGS = all_settings()
