"""Checkpoint files: plain types and tensors only, so that reading one can run no code.

A camox checkpoint is a dict of `format` ("camox"), `version` (1) and the fields of `CheckpointContent`. No random state
is in it: order, augmentation and dropout are functions of the seed and the position in the run.
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
from camoxpert_cli.model.weights_file import CHECKSUM, SAFETENSORS, checksum, read_weights_file, verify_archive

FORMAT = "camox"
VERSION = 1
_COMMENT = b"camox"  # of an archive, by which it is known as ours whatever program's layout is in it


Row = Annotated[dict[str, Number], Having(("epoch", "seconds"))]  # of the history
Scores = Annotated[dict[str, Number], Having(("epoch", "iou"))]
Setting = bool | int | float | str | list[int | float | str] | None


@dataclass
class Progress:
    """Where a run stands."""

    epoch: Count = 0  # complete epochs
    samples: Count = 0  # images seen in the epoch under way
    loss_sum: Number = 0.0  # of those images
    experts_chosen: list[list[Amount]] = field(default_factory=list)  # how many of them chose each, (L, E)
    skipped_steps: Count = 0  # in the epoch under way: gradients overflowed
    epoch_seconds: Amount = 0.0  # spent in the epoch under way
    rate: Amount = 0.0  # of the last step
    best_iou: float = -1.0
    best_epoch: Count = 0
    target_seconds: Amount | None = None  # into the run when validation IoU passed the target
    history: list[Row] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Spent in the run, over all its sessions."""
        return sum(row["seconds"] for row in self.history) + self.epoch_seconds


class Moments(TypedDict):
    """What AdamW keeps of a parameter."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


class ParameterGroup(TypedDict):
    """Of AdamW: which parameters, by their places, and how they are trained."""

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
    """What a run needs to go on. A field with a default is absent from files that were written before there was one."""

    progress: Annotated[Progress, Having(("epoch", "samples", "history", "best_epoch", "best_iou"))]
    backbone_stages: Annotated[int, Within(0, 4)]  # in training
    training_pictures: str  # a digest of names and sizes
    optimizer: OptimizerState
    scaler: ScalerState
    ema_updates: Count
    computed_with: dict[str, str] | None = None  # what rounding depends on

    def to_dict(self) -> dict[str, Any]:
        content = {name: value for name, value in vars(self).items() if value is not None}
        return {**content, "progress": asdict(self.progress)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainingContent:
        """From what `check` found to be one."""
        found = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        saved = content["progress"]
        progress = Progress(**{each.name: saved[each.name] for each in fields(Progress) if each.name in saved})
        progress.history = [*progress.history]  # it grows, and what was read stays what it is
        return cls(**{**found, "progress": progress})


@dataclass(frozen=True)
class CheckpointContent:
    """What a camox checkpoint holds, in the order of the file.

    None stands for what a file does not say, as one that was converted from another program's.
    """

    backbone: str | None  # timm name
    num_experts: Annotated[int, Within(1, MOST_EXPERTS)] | None
    network: dict[str, Tensor]  # state dict of the bare network
    ema: dict[str, Tensor] | None  # the same of its average
    epoch: Count | None  # how many were complete
    scores: Scores | None  # validation scores of these weights
    history: list[Row] | None  # one dict an epoch
    config: dict[str, dict[str, Setting]] | None  # every setting, nested
    versions: dict[str, str] | None  # of camox, torch and others
    training: TrainingContent | None = None  # in `last.pth`, not in `best_model.pth`
    pictures: str | None = None  # a digest of those that it was trained on and those that chose the best epoch

    def to_dict(self) -> dict[str, Any]:
        """What the file holds."""
        content = {"format": FORMAT, "version": VERSION, **vars(self)}
        training = content.pop("training")
        return content if training is None else {**content, "training": training.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CheckpointContent:
        """Raises WrongEntryError that names an entry which is missing, of another type than here, or impossible."""
        found = {each.name: content.get(each.name) for each in fields(cls)}
        check(cls, found, "")
        training = found.pop("training")
        own = cls(**found, training=None if training is None else TrainingContent.from_dict(training))  # type: ignore[arg-type]
        _refuse_impossible_seconds("history", own.history or [])
        _refuse_contradictions(own)
        return own


class Checkpoint(NamedTuple):
    """A file and what `read_checkpoint` found in it."""

    path: Path
    content: dict[str, Any]

    @property
    def own(self) -> CheckpointContent | None:
        """What it holds as a file of camox; None for another program's. Raises CheckpointError where that is wrong."""
        if layout_of(self.content) is not CAMOX:
            return None
        try:
            own = CheckpointContent.from_dict(self.content)
            if own.config is not None:
                from_mapping(own.config, "config")
        except (WrongEntryError, ConfigError) as error:
            raise CheckpointError(
                f"{self.path} does not hold what camox writes: {first_line(error)}", "take the checkpoint before it"
            ) from error
        return own

    @property
    def training(self) -> TrainingContent | None:
        """The training state, where the file has one of camox. Raises CheckpointError as `own`."""
        own = self.own
        return None if own is None else own.training


class CheckpointNotWritten(CheckpointError):
    """The disk refused; whatever was there before is still there."""


def write_checkpoint(path: Path, content: CheckpointContent, keep_as: Path | None = None) -> None:
    """Replace `path` by a verified file, at once or not at all; `keep_as` is where the one before it stays.

    Raises CheckpointNotWritten where the disk refuses.
    """
    write_verified(path, content.to_dict(), keep_as)


def write_verified(path: Path, content: Any, keep_as: Path | None = None) -> None:
    """`write_checkpoint` for any plain content."""
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
            "free some space, or make the folder writable; the file before it is kept",
        ) from None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Replace `path` by a verified .safetensors file with a checksum. Raises CheckpointNotWritten."""
    seen: set[int] = set()
    separate = {}
    for name, value in tensors.items():
        # The format has no shared memory: a tensor that has part of another one's is written once more.
        value = value.contiguous()
        memory = value.untyped_storage().data_ptr()
        separate[name] = value.clone() if memory in seen else value
        seen.add(memory)
    try:
        with atomic.replacing(path) as temporary:
            save_file(separate, temporary, metadata={**metadata, CHECKSUM: checksum(separate)})
            read_weights_file(temporary)
    except Exception as error:  # safetensors has an error class of its own for whatever is wrong
        raise CheckpointNotWritten(
            f"{path} cannot be written: {error}", "free some space, or choose another folder"
        ) from error


def is_own_file(path: Path) -> bool:
    """Whether a writer of this module, and so camox, wrote the file of weights; not whether they are whole."""
    try:
        if path.suffix == SAFETENSORS:
            with safe_open(path, framework="pt") as file:
                return "camox" in (file.metadata() or {})
        with zipfile.ZipFile(path) as archive:
            # Earlier ones have no comment, but torch named them after a hidden file, the one that was being written.
            return archive.comment == _COMMENT or archive.namelist()[0].startswith(".")
    except Exception:  # what files of any other kind make of these readers is not specified
        return False


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dict in a verified file of camox, of the original program, or of another one with CamoXpert's weights.

    Raises CheckpointError for a file that is missing, damaged, needs more than plain types, or is something else.
    """
    content = read_weights_file(path)
    refuse_later_version(content, path)
    with naming(path):
        networks_in(content)
    return content


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have a CheckpointError about what is in the file at `path` begin with it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", error.hint, error.details) from error


def refuse_later_version(content: Any, path: Path) -> None:
    """Raise CheckpointError for a file of a later camox, whatever it has in it."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return
    version = content.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{path} is of version {shown(version)}, and this camox reads up to {VERSION}", "install a newer camox"
        )


def checkpoint_bytes(network: nn.Module, ema: bool) -> int:
    """About the size of `last.pth` once all is trained: weights, their average where there is one, and two moments."""
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    moments = 2 * sum(value.numel() * value.element_size() for value in network.parameters())
    return weights * (2 if ema else 1) + moments


def _refuse_contradictions(content: CheckpointContent) -> None:
    """Raise WrongEntryError where entries say different things of how far the run was."""
    if content.training is None:
        return
    progress = content.training.progress
    _refuse_impossible_seconds("training.progress.history", progress.history)
    if progress.epoch != content.epoch:
        raise WrongEntryError(f"training.progress.epoch is {progress.epoch}, expected {content.epoch} as in epoch")
    for at, row in enumerate(progress.history):
        if not 1 <= row["epoch"] <= progress.epoch:
            raise WrongEntryError(
                f"training.progress.history.{at}.epoch is {row['epoch']}, expected one of the {progress.epoch} complete"
            )


def _refuse_impossible_seconds(entry: str, history: Sequence[Mapping[str, float]]) -> None:
    """Raise WrongEntryError where an epoch took less than no time, or for ever."""
    for at, row in enumerate(history):
        check(Amount, row["seconds"], f"{entry}.{at}.seconds")


def _sign(path: Path) -> None:
    """Add a comment to torch's zip archive, which ends with the size of one that it has not: in two bytes, 0."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(len(_COMMENT).to_bytes(2, "little") + _COMMENT)


def _link(path: Path, other: Path) -> None:
    """Give the file at `path` the second name `other`, replacing what has it."""
    if other.exists() and path.samefile(other):  # a process died before the next file took the place of `path`
        return
    with atomic.replacing(other) as temporary:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(path, temporary)


def _let_go_of(error: BaseException | None) -> None:
    """Free what an error's frames hold: torch's writer, and with it the unlinked file and its space on the disk."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _reason(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    free = ""
    with suppress(OSError):
        free = f" ({console.byte_size(shutil.disk_usage(folder).free)} are free)"
    # torch's writer begins with where in its source it failed.
    said = re.sub(r"^\[enforce fail at \S+\] \. ", "", first_line(error))
    return f"{said}{free}"
