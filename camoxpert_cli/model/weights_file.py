"""Read a file of tensors (.pth or .safetensors): verify its checksums and run no code in it."""

from __future__ import annotations

import functools
import pickle
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from camoxpert_cli import console
from camoxpert_cli.errors import CheckpointError, first_line, nearest
from camoxpert_cli.model.weights_archive import verify_archive

SAFETENSORS = ".safetensors"
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", SAFETENSORS)
# Metadata key in .safetensors files written by camox: a checksum over all tensors, since the format has none.
CHECKSUM = "camox.crc32"

# The original CamoXpert stores its best score as a NumPy scalar, which needs exactly these three names.
# Files written with NumPy 1 use the older module of the first.
_NUMPY_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
_SAFE_GLOBALS = [
    _NUMPY_SCALAR,
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
]
# CVE-2026-24747: before this release, a crafted file could run code despite weights_only.
_FIRST_SAFE_TORCH = (2, 10)
# The first byte of a pickle since protocol 2, which torch's formats before 1.6 use.
_PICKLE = b"\x80"
_LFS_POINTER = b"version https://git-lfs"


def read_weights_file(path: Path, *, mmap: bool = False) -> Any:
    """Return the content of the file on the CPU; for .safetensors, `{"state_dict": ..., "metadata": ...}`.

    With `mmap`, tensors are read from the file when they are used. Raises CheckpointError for a file that is missing,
    corrupt, or contains pickled objects other than plain types, tensors and the NumPy scalar of the original CamoXpert.
    """
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
        raise CheckpointError(
            f"{path} is a folder, not a weights file",
            f"pass a file, such as {files[0] if files else 'last.pth'}",
        )
    if not path.is_file():
        if path.exists():  # reading a pipe would block, and a device may never end
            raise CheckpointError(f"{path} is a pipe or a device, not a weights file", "copy it into a file first")
        broken = f" (a link to {path.readlink()}, which does not exist)" if path.is_symlink() else ""
        raise CheckpointError(f"file not found: {path}{broken}", _similar(path))
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            # Virtual files such as /proc/kmsg have no size, and reading them may block.
            start = file.read(len(_LFS_POINTER)) if size else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error
    if not start:
        raise CheckpointError(f"{path} is empty", "copy or download it again, or use the previous checkpoint")
    if start == _LFS_POINTER:
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself", "download the file: git lfs pull")
    if start.lstrip()[:1] == b"<" and start[8:9] != b"{":
        raise CheckpointError(
            f"{path} is not a weights file: it starts with {start[:9]!r}, like a web page",
            "download it again; the page may explain why the download failed",
        )
    # A .safetensors file starts with the length of its JSON header, eight bytes.
    if path.suffix == SAFETENSORS or start[8:9] == b"{":
        return _read_safetensors(path)
    archive = start.startswith(b"PK")
    if archive:
        verify_archive(path)
    elif not start.startswith(_PICKLE):
        raise CheckpointError(
            f"{path} is not a weights file: it starts with {start[:9]!r}",
            "pass a file written by torch.save, such as best_model.pth in a run folder",
        )
    # For mmap, torch needs the path as valid text, which the bytes of a file name need not be.
    return _unpickle(path, archive, mmap and str(path).isprintable())


def _similar(path: Path) -> str:
    """A hint for a file that does not exist: a file next to it with a similar name, if there is one."""
    try:
        names = [each.name for each in path.parent.iterdir() if each.is_file()]
    except OSError:  # no such folder, or not readable
        names = []
    similar = nearest(path.name, names)
    return f"{path.parent / similar[0]}, which has a similar name" if similar else "check the path for typos"


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 over names, shapes, dtypes and bytes of `tensors`, in the order of their names."""
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
    except Exception as error:  # safetensors has its own error class for everything
        raise CheckpointError(
            f"{path} is corrupt or truncated: {first_line(error)}", "copy or download it again"
        ) from error
    if CHECKSUM not in metadata:
        console.say(f"Note: {path} has no checksum, so its integrity cannot be verified")
    elif metadata[CHECKSUM] != checksum(tensors):
        raise CheckpointError(f"{path} is corrupt: its checksum does not match", "copy or convert it again")
    return {"state_dict": tensors, "metadata": metadata}


def _unpickle(path: Path, archive: bool, mmap: bool) -> Any:
    _warn_of_old_torch()
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and archive)
    except pickle.UnpicklingError as error:
        names = _unsafe_names(path) or re.findall(r"GLOBAL (\S+)", str(error))
        more = f" ({', '.join(names)})" if names else " or is not a checkpoint"
        raise CheckpointError(
            f"{path} contains pickled objects{more}; refused, because loading them could run arbitrary code",
            "save only its tensors with the program that wrote it: torch.save(network.state_dict(), 'weights.pth')",
        ) from error
    except Exception as error:  # corrupt files cause many kinds of errors
        raise CheckpointError(
            f"{path} cannot be read: {first_line(error)}", "copy or download the file again"
        ) from error
    if not archive:
        console.warn(
            f"{path} is in torch's format from before 1.6, which has no checksums, so its integrity cannot be verified"
        )
    return content


def _unsafe_names(path: Path) -> list[str]:
    """Unsafe names that the pickle in an archive would import; empty if they cannot be determined."""
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a corrupt or hostile file, which is refused in any case
        return []


@functools.cache
def _warn_of_old_torch() -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _FIRST_SAFE_TORCH:
        console.warn(
            f"torch {torch.__version__} has a known vulnerability in weights_only loading (CVE-2026-24747): load only "
            "files from sources you trust, or install torch 2.10 or newer"
        )
