"""Every setting of a run: its type, default, bounds and help, one frozen dataclass per section.

A setting's flag is its own name (`train.stage2_lr` is `--stage2-lr`), so names are unique over all sections.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from camoxpert_cli.config.parse import parse_cache, parse_devices, parse_duration, parse_interval, parse_sessions

Scheduler = Literal["cosine", "onecycle", "cosine_restart", "none"]
Strategy = Literal["auto", "single", "dp", "ddp"]
Device = Literal["auto", "cuda", "cpu"]
Compile = Literal["auto", "on", "off"]
Tracker = Literal["none", "wandb"]

# Of an image, in pixels: the network's coarsest feature maps have stride 32.
SMALLEST_SIDE, LARGEST_SIDE = 64, 4096
# Upper bound of counts that have no other: far above any practical value, but low enough that a typo does not fill the
# memory or the disk.
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
    """Return a dataclass field that also carries its help, its bounds (inclusive) and the original CamoXpert's default.

    `parse` checks a text value: it raises ValueError with what was expected. `stands_for` is the placeholder for the
    value in the help. A `fitted` setting accepts auto on the command line: the largest value that fits into GPU memory.
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
    backbone: str = setting(
        "edgenext_base", "name of a timm model with feature maps at strides 4, 8, 16 and 32", stands_for="NAME"
    )
    num_experts: int = setting(7, "number of experts per MoE layer", low=1, high=64)
    pretrained: bool = setting(True, "initialize the backbone with ImageNet weights")
    backbone_weights: str | None = setting(
        None, "file with backbone weights (.pth or .safetensors); nothing is downloaded", stands_for="FILE"
    )
    init_from: str | None = setting(
        None,
        "checkpoint whose weights (EMA if there are any) a new run starts with, such as best_model.pth of another run; "
        "schedule, data and everything else are the new run's own",
        stands_for="FILE",
    )
    deep_supervision: bool = setting(True, "also train the three side outputs of the decoder", original="off")
    gradient_checkpointing: bool = setting(False, "recompute activations in the backward pass to save memory")


@dataclass(frozen=True)
class DataConfig:
    dataset_path: tuple[str, ...] = setting(
        (), "dataset folder, or a list written by check-data; may be repeated", stands_for="DIR"
    )
    images: tuple[str, ...] = setting((), "folder (any name) of training images; requires --masks", stands_for="DIR")
    masks: tuple[str, ...] = setting((), "folder of the masks of --images", stands_for="DIR")
    val_images: tuple[str, ...] = setting(
        (),
        "folder of validation images; if given, no training images are held out; requires --val-masks",
        stands_for="DIR",
    )
    val_masks: tuple[str, ...] = setting((), "folder of the masks of --val-images", stands_for="DIR")
    negatives: tuple[str, ...] = setting(
        (), "folder of images that show no object, which need no masks; may be repeated", stands_for="DIR"
    )
    negatives_share: float | None = setting(
        None,
        "share of images without an object in every training batch; if not given, as many as there are, at most 0.2",
        low=0.0,
        high=0.9,
    )
    empty_as_negatives: bool = setting(
        False,
        "treat training and validation images whose masks mark nothing as images without an object, like --negatives",
    )
    include_noncam: bool = setting(
        False, "also use COD10K's NonCAM images, which show nothing camouflaged: as images without an object"
    )
    cache: Literal["auto", "off"] | str = setting(
        "auto",
        "folder for resized images; auto uses ~/.cache/camox if there is room, off reads the original files each time",
        parse=parse_cache,
        stands_for="DIR",
    )
    img_size: int = setting(320, "resize images to N x N pixels", low=SMALLEST_SIDE, high=LARGEST_SIDE, original="384")
    eval_img_size: int | None = setting(
        None,
        "size in validation, scoring and prediction, --img-size if not given; a network often scores better on larger "
        "images than it was trained on",
        low=SMALLEST_SIDE,
        high=LARGEST_SIDE,
    )
    upright: bool = setting(
        False,
        "augmentation mirrors images left to right, but does not turn them: for photos, which people take upright",
    )
    val_fraction: float = setting(
        0.1,
        "fraction of the training images held out for validation if no validation images are given",
        low=0.001,
        high=0.9,
    )
    min_epoch_images: int = setting(
        1,
        "an epoch goes over a small training set several times, until it has this many images; each time, they are "
        "augmented differently",
        low=1,
        high=MOST_COUNTED,
    )
    num_workers: int | Literal["auto"] = setting(
        "auto",
        "number of data-loading workers; auto derives it from the CPU cores available to this process",
        low=0,
        high=256,
        original="4",
    )
    generated_images: int = setting(0, "generate this many training images if no dataset is given", low=0)

    @property
    def scored_size(self) -> int:
        """Return the side in pixels of the images that are validated and scored."""
        return self.img_size if self.eval_img_size is None else self.eval_img_size


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = setting(140, "total number of epochs, both stages together", low=1, original="120")
    fit: str | None = setting(
        None,
        "choose the number of epochs so that the run, in the proportions of its preset, ends within this time, such as "
        "9h, or within several sessions of it, such as 3x12h",
        parse=parse_sessions,
        stands_for="TIME|NxTIME",
    )
    patience: int | None = setting(
        None,
        "end training after this many epochs in a row without a better validation IoU, counted once the whole network "
        "trains and the warmup is over",
        low=1,
    )
    stage1_epochs: int = setting(30, "epochs of stage 1, in which the backbone is frozen", low=0)
    last_epoch_images: int | None = setting(
        None, "train on only this many images in the last epoch, so that a run need not end with a whole one", low=1
    )
    batch_size: int = setting(
        8,
        "per-GPU batch size; auto picks the largest that fits, with gradient accumulation that keeps the global batch "
        "size of the preset or the defaults",
        low=1,
        original="2, split over all GPUs",
        fitted=True,
    )
    stage2_batch_size: int | None = setting(
        None, "per-GPU batch size in stage 2; half of --batch-size if not given", low=1, fitted=True
    )
    accumulation_steps: int = setting(1, "gradient accumulation: batches per optimizer step", low=1, original="4")
    lr: float = setting(6.5e-4, "learning rate in stage 1", low=0.0, original="0.00025")
    stage2_lr: float | None = setting(None, "learning rate in stage 2; --lr if not given", low=0.0)
    backbone_lr_factor: float = setting(0.1, "learning-rate multiplier for the backbone", low=0.0, high=1.0)
    weight_decay: float = setting(1e-4, "weight decay of AdamW", low=0.0)
    scheduler: Scheduler = setting("cosine", "learning-rate schedule within each stage", original="onecycle")
    min_lr: float = setting(1e-6, "learning rate at the end of the schedule", low=0.0)
    warmup_epochs: int = setting(0, "learning-rate warmup at the start of stage 2, in epochs", low=0)
    t_mult: int = setting(2, "each cosine_restart cycle is this many times as long as the previous one", low=1)
    progressive_unfreeze: bool = setting(
        True, "unfreeze the backbone in three steps during stage 2, last layers first", original="off"
    )
    skip_stage1: bool = setting(False, "start with stage 2")
    use_ema: bool = setting(
        True, "keep an exponential moving average (EMA) of the weights, and validate with it", original="off"
    )
    ema_decay: float = setting(0.999, "decay of the EMA weights per step", low=0.0, high=1.0)
    sync_batchnorm: bool = setting(
        False, "synchronize BatchNorm statistics across all GPUs in training; for strategy ddp"
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = setting(
        "auto",
        "training precision; auto uses bf16 if the GPU supports it, fp16 on other GPUs and fp32 on the CPU",
        original="fp16",
    )
    compile: Compile = setting(
        "auto",
        "compile backbone and decoder with torch.compile; auto compares compiled with uncompiled steps on GPUs, if "
        "enough training remains for it to pay, and does not compile on the CPU",
        original="off",
    )
    deterministic: bool = setting(
        False,
        "use only deterministic algorithms, which are slower, so that repeated and resumed runs are bitwise identical "
        "on GPUs",
    )
    seed: int = setting(
        42, "random seed for data order, augmentation, dropout and initial weights", low=0, high=2**32 - 1
    )


@dataclass(frozen=True)
class RunConfig:
    checkpoint_dir: str | None = setting(None, "run folder; runs/<preset>-<time> if not given", stands_for="DIR")
    resume_from: str | None = setting(
        None,
        "checkpoint to continue from, written by camox or the original CamoXpert; if it is a best_model.pth and the "
        "images are not those it was trained on, a new run starts from these weights",
        stands_for="FILE",
    )
    continue_: bool | None = setting(
        None,
        "if the run folder already contains this run, resume it, or print its results if it is complete; on by default "
        "if a scheduler or torchrun runs the command again",
    )
    device: Device = setting("auto", "device to run on", original="cuda")
    gpus: int | Literal["all"] | None = setting(
        None,
        "number of GPUs (with --device cpu: of processes); by default as many as in --devices, or one",
        low=1,
        high=1024,
    )
    devices: str | None = setting(
        None, "indices of the GPUs to use, such as 0,2", parse=parse_devices, stands_for="N,N"
    )
    strategy: Strategy = setting(
        "auto",
        "how to use several GPUs: ddp runs one process per GPU, dp a single process; auto tries both and picks "
        "the faster on two or three GPUs, and uses ddp on more",
    )
    max_restarts: int = setting(
        0, "restart from the last checkpoint up to this many times if a process crashes", low=0, high=1000
    )
    collective_timeout: str = setting(
        "10m",
        "how long the processes of a run wait for each other before the run fails",
        parse=parse_duration,
        stands_for="TIME",
    )
    target_iou: float | None = setting(None, "report when validation IoU passes this value", low=0.0, high=1.0)
    save_every: str | None = setting(
        "10m",
        "how often to save within an epoch: 30s, 10m, 1h, or a number of optimizer steps",
        parse=parse_interval,
        stands_for="TIME|N",
    )
    time_limit: str | None = setting(
        None,
        "stop and save before this much time, such as 11h30m, has passed since camox started",
        parse=parse_duration,
        stands_for="TIME",
    )
    session_limit: str | None = setting(
        None,
        "same, but counted from the start of the machine's session; 12h on Kaggle, for example",
        parse=parse_duration,
        stands_for="TIME",
    )
    unfinished_exit_code: int | None = setting(
        None,
        "exit code if a time limit or a signal stops the run before its end; if not given, 0 for a time limit and 128 "
        "plus the signal's number for a signal",
        low=0,
        high=255,
    )
    report: bool = setting(True, "write report.html and curves.png when the run ends")
    tracker: Tracker = setting(
        "none", "also log curves, settings and results to Weights & Biases; offline with WANDB_MODE=offline"
    )
    tensorboard: bool = setting(False, "also write curves for TensorBoard to the run folder")


@dataclass(frozen=True)
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def stage2_rate(self) -> float:
        """Return the learning rate of stage 2: that of stage 1 if none is given."""
        return self.train.lr if self.train.stage2_lr is None else self.train.stage2_lr

    @property
    def stage2_batch_size(self) -> int:
        """Return the per-GPU batch size of stage 2: half of that of stage 1, at least one, if none is given."""
        given = self.train.stage2_batch_size
        return max(1, self.train.batch_size // 2) if given is None else given

    @property
    def gpu_count(self) -> int:
        """Return the number of devices, one if not set. "all" must have been resolved to a number before."""
        assert self.run.gpus != "all"
        return self.run.gpus or 1

    @property
    def global_batches(self) -> tuple[int, int]:
        """Return the global batch sizes of stages 1 and 2: images per optimizer step over all GPUs and accumulation."""
        devices = self.train.accumulation_steps * self.gpu_count
        return self.train.batch_size * devices, self.stage2_batch_size * devices


@dataclass(frozen=True)
class Setting:
    """One row of the schema: where a setting belongs and what it accepts."""

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

    @property
    def is_switch(self) -> bool:
        return bool in (self.type, *get_args(self.type))

    def of(self, config: Config) -> Any:
        """Return the setting's value."""
        return getattr(getattr(config, self.section), field_of(self.name))


def name_of(field_name: str) -> str:
    """Return the name of the setting in a field, without the underscore of a field that would be a keyword."""
    return field_name.rstrip("_")


def field_of(name: str) -> str:
    """Return the name of the field of a setting: the inverse of `name_of`."""
    return f"{name}_" if keyword.iskeyword(name) else name


def all_settings() -> dict[str, Setting]:
    """Return every setting by its dotted key, in schema order."""
    settings = {}
    for section_name, section in SECTIONS.items():
        types = get_type_hints(section)
        for item in fields(section):
            kind = types[item.name]
            row = Setting(section_name, name_of(item.name), kind, item.default, **item.metadata)
            if row.high is None and int in (kind, *get_args(kind)):
                row = replace(row, high=MOST_COUNTED)
            settings[row.key] = row
    return settings


SECTIONS: dict[str, Any] = get_type_hints(Config)
SETTINGS = all_settings()
