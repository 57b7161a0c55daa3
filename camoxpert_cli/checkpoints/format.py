"""Checkpoint files: plain types and tensors only, so that reading one cannot run code.

A camox checkpoint is a dict of `format` ("camox"), `version` (1) and the fields of `CheckpointContent`. It contains no
random state: order, augmentation and dropout are functions of the seed and the position in the run.
"""

from __future__ import annotations

import os
import re
import shutil
import traceback
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from camoxpert_cli import atomic, console
from camoxpert_cli.checkpoints.program_layouts import CAMOX, MOST_EXPERTS, layout_of, networks_in
from camoxpert_cli.checkpoints.typed import Amount, Count, Having, Number, Within, WrongEntryError, check
from camoxpert_cli.config.resolve import from_mapping
from camoxpert_cli.errors import CheckpointError, ConfigError, first_line, shown
from camoxpert_cli.model.weights_archive import verify_archive
from camoxpert_cli.model.weights_file import CHECKSUM, SAFETENSORS, checksum, read_weights_file

FORMAT = "camox"
VERSION = 1
_COMMENT = b"camox"  # archive comment that identifies files written by camox, whatever layout they contain


Row = Annotated[dict[str, Number], Having(("epoch", "seconds"))]  # of the history
Scores = Annotated[dict[str, Number], Having(("epoch", "iou"))]
Setting = bool | int | float | str | list[int | float | str] | None


@dataclass
class Progress:
    """How far a run has progressed."""

    epoch: Count = 0  # complete epochs
    samples: Count = 0  # images seen in the current epoch
    loss_sum: Number = 0.0  # over those images
    experts_chosen: list[list[Amount]] = field(default_factory=list)  # how many of them used each expert, (L, E)
    skipped_steps: Count = 0  # in the current epoch, because gradients overflowed
    epoch_seconds: Amount = 0.0  # spent in the current epoch
    rate: Amount = 0.0  # learning rate of the last step
    best_iou: float = -1.0  # below 0 if there are no best weights yet
    best_epoch: Count = 0  # 0 for the weights that a run with `model.init_from` started with
    target_seconds: Amount | None = None  # into the run when validation IoU reached the target
    history: list[Row] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds spent in the run, over all its sessions."""
        return sum(row["seconds"] for row in self.history) + self.epoch_seconds

    @property
    def has_best(self) -> bool:
        """Whether there are best weights, in `best_model.pth`."""
        return self.best_iou >= 0

    @property
    def epoch_of_best(self) -> int | None:
        """The epoch of the best weights, 0 for those that the run started with; None if there are none yet."""
        return self.best_epoch if self.has_best else None


class Moments(TypedDict):
    """AdamW's state for one parameter."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


class ParameterGroup(TypedDict):
    """A parameter group of AdamW: indices of its parameters, and their hyperparameters."""

    name: str
    params: list[Count]
    lr: Amount
    betas: tuple[Amount, Amount]
    eps: Amount
    weight_decay: Amount
    amsgrad: Literal[False]
    maximize: Literal[False]
    capturable: Literal[False]
    differentiable: Literal[False]


class OptimizerState(TypedDict):
    """AdamW's state dict."""

    state: dict[Count, Moments]
    param_groups: list[ParameterGroup]


class ScalerState(TypedDict, total=False):
    """GradScaler's state dict, empty without float16."""

    scale: Annotated[float, Within(1e-300, 1e300)]
    growth_factor: Annotated[float, Within(1.0, 1e6)]
    backoff_factor: Annotated[float, Within(1e-6, 1.0)]
    growth_interval: Annotated[int, Within(1, 2**31)]
    _growth_tracker: Count


@dataclass(frozen=True)
class TrainingContent:
    """What a run needs to resume. Fields with a default are absent from files written before they existed."""

    progress: Annotated[Progress, Having(("epoch", "samples", "history", "best_epoch", "best_iou"))]
    backbone_stages: Annotated[int, Within(0, 4)]  # that are trained
    training_images: str  # digest of names and sizes
    optimizer: OptimizerState
    scaler: ScalerState
    ema_updates: Count
    computed_with: dict[str, str] | None = None  # what rounding depends on

    def to_dict(self) -> dict[str, Any]:
        """Return the entries of the file."""
        content = {name: value for name, value in vars(self).items() if value is not None}
        return {**content, "progress": asdict(self.progress)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainingContent:
        """Build the content from entries that `check` accepted."""
        found = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        saved = content["progress"]
        progress = Progress(**{each.name: saved[each.name] for each in fields(Progress) if each.name in saved})
        progress.history = [*progress.history]  # it grows, and `content` must not change
        return cls(**{**found, "progress": progress})


Settings = dict[str, dict[str, Setting]]


@dataclass(frozen=True)
class StartContent:
    """How a run was started: its settings `as_given`, and `as_decided`, after they were fitted to the machine.

    By the former, the command that started a run recognizes it when it is run again. The latter have the global batch
    sizes that a resumed run keeps on any number of GPUs.
    """

    as_given: Settings
    as_decided: Settings


@dataclass(frozen=True)
class CheckpointContent:
    """The content of a camox checkpoint, in the order of the file.

    None stands for what a file does not specify, such as one converted from another program's.
    """

    backbone: str | None  # timm name
    num_experts: Annotated[int, Within(1, MOST_EXPERTS)] | None
    network: dict[str, Tensor]  # state dict of the bare network
    ema: dict[str, Tensor] | None  # the same for the EMA weights
    epoch: Count | None  # complete epochs
    scores: Scores | None  # validation scores of these weights
    history: list[Row] | None  # one dict per epoch
    config: Settings | None  # every setting, nested
    versions: dict[str, str] | None  # of camox, torch and others
    training: TrainingContent | None = None  # in `last.pth`, not in `best_model.pth`
    images: str | None = None  # digest of the training images and of those that selected the best epoch
    start: StartContent | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        content = {"format": FORMAT, "version": VERSION, **vars(self)}
        training, start = content.pop("training"), content.pop("start")
        content |= {} if start is None else {"start": asdict(start)}
        return content if training is None else {**content, "training": training.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CheckpointContent:
        """Validate and convert the content of a file, of camox 0.1 as well.

        Raises WrongEntryError that names an entry which is missing, of the wrong type, or impossible.
        """
        content = _with_current_names(content)
        found = {each.name: content.get(each.name) for each in fields(cls)}
        check(cls, found, "")
        training, start = found.pop("training"), found.pop("start")
        own = cls(
            **found,  # type: ignore[arg-type]
            training=None if training is None else TrainingContent.from_dict(training),
            start=None if start is None else StartContent(start["as_given"], start["as_decided"]),
        )
        _refuse_impossible_seconds("history", own.history or [])
        _refuse_contradictions(own)
        return own


class Checkpoint(NamedTuple):
    """A file and the content that `read_checkpoint` returned for it."""

    path: Path
    content: dict[str, Any]

    @property
    def own(self) -> CheckpointContent | None:
        """The content as a camox checkpoint; None for another program's. Raises CheckpointError if it is invalid."""
        if layout_of(self.content) is not CAMOX:
            return None
        try:
            own = CheckpointContent.from_dict(self.content)
            if own.config is not None:
                from_mapping(own.config, "config")
            if own.start is not None:
                from_mapping(own.start.as_given, "start.as_given")
                from_mapping(own.start.as_decided, "start.as_decided")
        except (WrongEntryError, ConfigError) as error:
            raise CheckpointError(
                f"{self.path} is not a valid camox checkpoint: {first_line(error)}", "use the previous checkpoint"
            ) from error
        return own

    @property
    def training(self) -> TrainingContent | None:
        """The training state of a camox checkpoint that has one, else None. Raises CheckpointError as `own`."""
        own = self.own
        return None if own is None else own.training

    @property
    def start(self) -> StartContent | None:
        """How the run of a camox checkpoint was started; in a file of an earlier version, the run's settings.

        None if the file has no settings. Raises CheckpointError as `own`.
        """
        own = self.own
        if own is None or own.config is None:
            return None
        return StartContent(own.config, own.config) if own.start is None else own.start


class CheckpointNotWritten(CheckpointError):
    """A checkpoint could not be written; the previous file is unchanged."""


def write_checkpoint(path: Path, content: CheckpointContent, keep_as: Path | None = None) -> None:
    """Atomically replace `path` with a verified file; `keep_as` is the path under which the previous one is kept.

    Raises CheckpointNotWritten if the file cannot be written.
    """
    write_verified(path, content.to_dict(), keep_as)


def write_verified(path: Path, content: Any, keep_as: Path | None = None) -> None:
    """Write any plain content as `write_checkpoint` does."""
    try:
        with atomic.replacing(path) as temporary:
            torch.save(content, temporary)
            _sign(temporary)
            verify_archive(temporary)
            if keep_as is not None and path.exists():
                _link(path, keep_as)
    except (OSError, RuntimeError, CheckpointError) as error:  # torch's writer turns a full disk into a RuntimeError
        _let_go_of(error)
        raise CheckpointNotWritten(
            f"{path} cannot be written: {_reason(error, path.parent)}",
            "free some disk space or make the folder writable; the previous file is kept",
        ) from None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Atomically replace `path` with a verified .safetensors file with a checksum. Raises CheckpointNotWritten."""
    seen: set[int] = set()
    separate = {}
    for name, value in tensors.items():
        # The format does not support shared memory: a tensor that shares another one's is written as a copy.
        value = value.contiguous()
        memory = value.untyped_storage().data_ptr()
        separate[name] = value.clone() if memory in seen else value
        seen.add(memory)
    try:
        with atomic.replacing(path) as temporary:
            save_file(separate, temporary, metadata={**metadata, CHECKSUM: checksum(separate)})
            read_weights_file(temporary)
    except Exception as error:  # safetensors has its own error class for everything
        raise CheckpointNotWritten(
            f"{path} cannot be written: {error}", "free some disk space or choose another folder"
        ) from error


def is_own_file(path: Path) -> bool:
    """Return whether camox wrote this file of weights, without checking its integrity."""
    try:
        if path.suffix == SAFETENSORS:
            with safe_open(path, framework="pt") as file:
                return "camox" in (file.metadata() or {})
        with zipfile.ZipFile(path) as archive:
            # Early files have no comment, but torch named their members after the hidden temporary file.
            return archive.comment == _COMMENT or archive.namelist()[0].startswith(".")
    except Exception:  # what these readers raise for other kinds of files is not specified
        return False


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the verified content of a checkpoint of camox, the original CamoXpert, or another program.

    Raises CheckpointError for a file that is missing, corrupt, contains pickled objects, or has no CamoXpert weights.
    """
    content = read_weights_file(path)
    refuse_later_version(content, path)
    with naming(path):
        networks_in(content)
    return content


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Prefix the message of a CheckpointError about the content of a file with its path."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", error.hint, error.details) from error


def refuse_later_version(content: Any, path: Path) -> None:
    """Raise CheckpointError for a file written by a later camox, whatever it contains."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return
    version = content.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{path} has format version {shown(version)}, but this camox reads versions up to {VERSION}",
            "install a newer camox",
        )


def checkpoint_bytes(network: nn.Module, ema: bool) -> int:
    """Estimate the size of `last.pth` when everything is trained: weights, EMA weights if any, and two moments."""
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    moments = 2 * sum(value.numel() * value.element_size() for value in network.parameters())
    return weights * (2 if ema else 1) + moments


def _with_current_names(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """`content` with the entries that camox 0.1 named otherwise under their current names."""
    training = content.get("training")
    if isinstance(training, Mapping):
        content = {**content, "training": _renamed(training, "training_pictures", "training_images")}
    return _renamed(content, "pictures", "images")


def _renamed(entries: Mapping[str, Any], old: str, new: str) -> Mapping[str, Any]:
    return {new if name == old and new not in entries else name: value for name, value in entries.items()}


def _refuse_contradictions(content: CheckpointContent) -> None:
    """Raise WrongEntryError if entries contradict each other about the progress of the run."""
    if content.training is None:
        return
    progress = content.training.progress
    _refuse_impossible_seconds("training.progress.history", progress.history)
    if progress.epoch != content.epoch:
        raise WrongEntryError(f"training.progress.epoch is {progress.epoch}, expected {content.epoch} as in epoch")
    for at, row in enumerate(progress.history):
        if not 1 <= row["epoch"] <= progress.epoch:
            raise WrongEntryError(
                f"training.progress.history.{at}.epoch is {row['epoch']}, "
                f"expected the number of a complete epoch, at most {progress.epoch}"
            )


def _refuse_impossible_seconds(entry: str, history: Sequence[Mapping[str, float]]) -> None:
    """Raise WrongEntryError if the duration of an epoch is negative or not finite."""
    for at, row in enumerate(history):
        check(Amount, row["seconds"], f"{entry}.{at}.seconds")


def _sign(path: Path) -> None:
    """Add a comment to torch's zip archive, which ends with two zero bytes, the length of its empty comment."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(len(_COMMENT).to_bytes(2, "little") + _COMMENT)


def _link(path: Path, other: Path) -> None:
    """Give the file at `path` a second name `other`, replacing the file that has it."""
    if other.exists() and path.samefile(other):  # a process died before the next file replaced `path`
        return
    with atomic.replacing(other) as temporary:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(path, temporary)


def _let_go_of(error: BaseException | None) -> None:
    """Free what an error's frames reference: torch's writer, and with it the disk space of the unlinked file."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _reason(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    free = ""
    with suppress(OSError):
        free = f" ({console.byte_size(shutil.disk_usage(folder).free)} free)"
    # torch's writer starts its message with the location in its source.
    said = re.sub(r"^\[enforce fail at \S+\] \. ", "", first_line(error))
    return f"{said}{free}"
