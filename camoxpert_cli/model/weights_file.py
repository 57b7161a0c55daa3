"""Reads a file of tensors (.pth or .safetensors): its checksums are verified, and nothing in it is run."""

from __future__ import annotations

import functools
import pickle
import re
import shlex
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from camoxpert_cli import console
from camoxpert_cli.errors import CheckpointError, first_line

SAFETENSORS = ".safetensors"
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", SAFETENSORS)
# In a .safetensors file of ours: the checksum over all tensors, since that format has none of its own.
CHECKSUM = "camox.crc32"

# The original program stores its best score as a NumPy scalar; these three names are what that takes, and no more.
# Files written under NumPy 1 know the first by its older module.
_NUMPY_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
_SAFE_GLOBALS = [
    _NUMPY_SCALAR,
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
]
# CVE-2026-24747: before this release a crafted file could break out of the safe reader.
_FIRST_SAFE_TORCH = (2, 10)
# In the external attributes of a zip member, as DOS has them.
_IS_FOLDER = 0x10
# The first byte of a pickle since its protocol 2, which torch's formats before 1.6 are made of.
_PICKLE = b"\x80"
_LFS_POINTER = b"version https://git-lfs"
# An archive that unpacks to more than this, and to so many times its own size, is no file of weights.
_MOST_UNPACKED = 2**28
_MOST_TIMES = 8


def read_weights_file(path: Path, *, mmap: bool = False) -> Any:
    """What the file holds, on the CPU; of .safetensors, `{"state_dict": ..., "metadata": ...}`.

    `mmap` leaves the tensors in the file until they are used. Raises CheckpointError for a file that is missing,
    damaged, or asks for anything beside plain types, tensors and the NumPy scalar of the original program.
    """
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
        raise CheckpointError(
            f"{path} is a folder, not a file of weights",
            f"give a file, such as {files[0] if files else 'last.pth'}",
        )
    if not path.is_file():
        look = f"look what is there: ls -l {shlex.quote(str(path.parent))}"
        if path.exists():  # a pipe would be waited for, and a device read for ever
            raise CheckpointError(f"{path} is a pipe or a device, not a file of weights", "copy it into a file first")
        broken = f": it is a link to {path.readlink()}, which leads nowhere" if path.is_symlink() else ""
        raise CheckpointError(f"there is no file {path}{broken}", look)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            # What the system makes up, such as /proc/kmsg, has no size, and whoever reads it may wait.
            start = file.read(len(_LFS_POINTER)) if size else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error
    if not start:
        raise CheckpointError(f"{path} is empty", "copy or download it again, or take the checkpoint before it")
    if start == _LFS_POINTER:
        raise CheckpointError(f"{path} is a pointer of Git LFS, not the file it stands for", "fetch it: git lfs pull")
    if start.lstrip()[:1] == b"<" and start[8:9] != b"{":
        raise CheckpointError(
            f"{path} is no file of weights: it begins with {start[:9]!r}, as a web page does",
            "download it again; the page may say why you got it in its place",
        )
    # A .safetensors file begins with the length of its JSON header, eight bytes.
    if path.suffix == SAFETENSORS or start[8:9] == b"{":
        return _read_safetensors(path)
    archive = start.startswith(b"PK")
    if archive:
        verify_archive(path)
    elif not start.startswith(_PICKLE):
        raise CheckpointError(
            f"{path} is no file of weights: it begins with {start[:9]!r}",
            "give one that torch.save wrote, such as best_model.pth in a run folder",
        )
    # For mapping it torch takes the path as text, which the bytes of a name need not be.
    return _unpickle(path, archive, mmap and str(path).isprintable())


def verify_archive(path: Path) -> None:
    """Compare every member of a zip archive with its checksum, which torch does not. Raises CheckpointError."""
    hint = "take the checkpoint before it, or copy it again"
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
            if unpacked > max(_MOST_UNPACKED, _MOST_TIMES * size):
                raise CheckpointError(
                    f"{path} has {console.byte_size(size)} and would unpack to {console.byte_size(unpacked)}: "
                    "no weights compress like that",
                    "save its tensors anew with the program that wrote it",
                )
            broken = archive.testzip()
            # torch reads nothing for what is marked as a folder, and leaves the tensor as the memory happened to be.
            folders = [member.filename for member in archive.infolist() if member.external_attr & _IS_FOLDER]
            broken = broken or next(iter(folders), None)
    except CheckpointError:
        raise
    except Exception as error:  # what a damaged directory makes of zipfile is not specified
        raise CheckpointError(f"{path} is damaged or cut off: {first_line(error)}", hint) from error
    if broken is not None:
        raise CheckpointError(f"{path} is damaged: {broken} in it is not what was written", hint)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 over names, shapes, dtypes and bytes of `tensors`, in the order of their names."""
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        value = zlib.crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), value)
        value = zlib.crc32(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()), value)  # type: ignore[arg-type]
    return f"{value:08x}"


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
    except Exception as error:  # safetensors has an error class of its own for whatever is wrong
        raise CheckpointError(
            f"{path} is damaged or cut off: {first_line(error)}", "copy or download it again"
        ) from error
    if CHECKSUM not in metadata:
        console.say(f"Note: {path} has no checksum, so that whether it is whole cannot be verified")
    elif metadata[CHECKSUM] != checksum(tensors):
        raise CheckpointError(f"{path} is damaged: its checksum is wrong", "copy it, or convert it anew")
    return {"state_dict": tensors, "metadata": metadata}


def _unpickle(path: Path, archive: bool, mmap: bool) -> Any:
    _warn_of_old_torch()
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and archive)
    except pickle.UnpicklingError as error:
        names = _unsafe_names(path) or re.findall(r"GLOBAL (\S+)", str(error))
        more = f": {', '.join(names)}" if names else ", or is no checkpoint"
        raise CheckpointError(
            f"{path} asks for more than plain types{more}; it was not loaded, since that could run code of its own",
            "save its tensors alone with the program that wrote it: torch.save(network.state_dict(), 'weights.pth')",
        ) from error
    except Exception as error:  # damaged files end in many kinds of error
        raise CheckpointError(
            f"{path} cannot be read: {first_line(error)}", "copy or download the file again"
        ) from error
    if not archive:
        console.warn(
            f"{path} is in torch's format of before 1.6, which has no checksums: whether it is whole cannot be verified"
        )
    return content


def _unsafe_names(path: Path) -> list[str]:
    """What the pickle in an archive would import, beside what is safe; empty where that cannot be told."""
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged or hostile file, which is refused in any case
        return []


@functools.cache
def _warn_of_old_torch() -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _FIRST_SAFE_TORCH:
        console.warn(
            f"torch {torch.__version__} has a known hole in its safe reader (CVE-2026-24747): load files from people "
            "you trust only, or install torch 2.10 or newer"
        )
