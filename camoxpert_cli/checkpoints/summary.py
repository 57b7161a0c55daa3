"""What a checkpoint says about its run, verified and read without torch and without its tensors."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from camoxpert_cli.errors import CheckpointError, one_line
from camoxpert_cli.model.weights_archive import open_verified
from camoxpert_cli.regular_file import open_regular

_FORMAT = "camox"
# A file on a network disk may be replaced while it is read.
_TRIES = 3
# Names that tensors are pickled with, and the NumPy scalar that the original CamoXpert saves next to them.
_OF_TENSORS = {
    *(("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"), ("numpy", "dtype")),
    *(("numpy._core.multiarray", "scalar"), ("numpy.core.multiarray", "scalar"), ("_codecs", "encode")),
}
_LARGEST = 2**53


@dataclass(frozen=True)
class CheckpointSummary:
    """Size and time of a checkpoint, whether it is intact, and how far it says that its run got.

    `intact` is None if that cannot be verified. `problem` says why it is not True, or that another program wrote the
    file. `epoch` counts complete epochs; `samples`, the images seen in the current one, is None for weights alone.
    """

    size: int
    modified: float  # seconds since 1970
    intact: bool | None
    problem: str = ""
    epoch: int | None = None
    samples: int | None = None
    epoch_seconds: float = 0.0  # spent in the current epoch
    history: tuple[Mapping[str, Any], ...] = ()  # rows that have at least epoch and seconds
    best_epoch: int | None = None
    best_iou: float | None = None
    backbone_stages: int = 0  # that are trained
    config: Mapping[str, Any] | None = None


def summarize(path: Path) -> CheckpointSummary | None:
    """Return the summary of the checkpoint at `path`, which may be replaced meanwhile; None if there is no file."""
    problem = ""
    for _ in range(_TRIES):
        try:
            with open_regular(path) as file:
                return _summary_of(file, path)
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
    try:
        status = path.stat()
    except OSError:
        return None
    return CheckpointSummary(status.st_size, status.st_mtime, None, problem) if stat.S_ISREG(status.st_mode) else None


def rows_of(history: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the rows of a run's history that say which epoch they are of and how long it took."""
    rows = history if isinstance(history, list) else []
    return tuple(
        row for row in rows if isinstance(row, dict) and _count(row.get("epoch")) and _amount(row.get("seconds")) >= 0
    )


def _summary_of(file: BinaryIO, path: Path) -> CheckpointSummary:
    status = os.fstat(file.fileno())
    found = CheckpointSummary(status.st_size, status.st_mtime, intact=False)
    start = file.read(9)
    if start[:1] == b"\x80" or start[8:] == b"{":  # torch's format before 1.6, safetensors
        return replace(found, intact=None, problem="in a format that cannot be verified here")
    if start[:2] != b"PK":
        return replace(found, problem="not a weights file" if start else "empty")
    try:
        with open_verified(file, path) as archive:
            return replace(found, intact=True, **_facts(_content(archive)))
    except CheckpointError as error:
        if isinstance(cause := error.__cause__, OSError) and cause.errno == errno.ESTALE:
            raise cause from None  # replaced on a network disk
        return replace(found, problem=error.message.removeprefix(f"{path} is "))
    except Exception as error:  # crafted content causes many kinds of errors
        return replace(found, problem=f"not a valid checkpoint: {one_line(error)}")


class _Stub:
    """Stands for tensors, their storage, and NumPy scalars."""

    __slots__ = ()

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Reads plain types; creates nothing but stubs and ordered dicts for everything else, and calls nothing."""

    def persistent_load(self, pid: object) -> None:
        return None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in _OF_TENSORS or (module == "torch" and name.endswith("Storage")):
            return _Stub
        raise pickle.UnpicklingError(f"it contains pickled objects ({module}.{name})")


def _content(archive: zipfile.ZipFile) -> Any:
    folder = archive.namelist()[0].split("/")[0]  # torch names all members after it
    with archive.open(f"{folder}/data.pkl") as file:
        return _Unpickler(file).load()


def _facts(content: Any) -> dict[str, Any]:
    """The fields of a summary. Raises ValueError, or whatever crafted content raises."""
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return {"problem": "written by another program"}
    training, scores = content.get("training"), content.get("scores")
    progress = None if training is None else training["progress"]
    epoch = _count(content.get("epoch") if progress is None else progress["epoch"])
    samples = None if progress is None else _count(progress["samples"])
    if not content.get("network"):
        raise ValueError("it contains no weights")
    if progress is not None and (epoch is None or samples is None):
        raise ValueError("it does not say how far the run got")
    best = (scores or {}) if progress is None else {"epoch": progress["best_epoch"], "iou": progress["best_iou"]}
    best_epoch, best_iou = _count(best.get("epoch")), _amount(best.get("iou"))
    has_best = best_epoch is not None and best_iou >= 0
    config = content.get("config")
    return {
        "epoch": epoch,
        "samples": samples,
        "epoch_seconds": 0.0 if progress is None else max(0.0, _amount(progress.get("epoch_seconds"))),
        "history": rows_of((content if progress is None else progress).get("history")),
        "best_epoch": best_epoch if has_best else None,
        "best_iou": best_iou if has_best else None,
        "backbone_stages": 0 if training is None else _count(training.get("backbone_stages")) or 0,
        "config": config if isinstance(config, dict) else None,
    }


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _LARGEST else None


def _amount(value: Any) -> float:
    """`value` as a number; -1 if it is none, or not finite."""
    return float(value) if type(value) in (int, float) and abs(value) <= _LARGEST else -1.0
