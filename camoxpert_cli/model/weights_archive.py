"""The zip archive in which torch saves tensors, verified in full without torch.

torch verifies no checksum. Python's zipfile verifies those of the members, but not that all of them are there, and
accepts a directory that torch refuses.
"""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from typing import IO

from camoxpert_cli import console
from camoxpert_cli.errors import CheckpointError, first_line

# DOS flag in the external attributes of a member.
_IS_FOLDER = 0x10
# Flag bits of a member: encrypted, strongly encrypted, header masked.
_ENCRYPTED = 0x2041
# An archive that unpacks to more than this, and to this many times its size, is not a weights file.
_MOST_UNPACKED = 2**28
_MOST_TIMES = 8
_CHUNK = 2**20
# Sizes of a directory entry without its name, extra field and comment, and where in it their lengths are.
_ENTRY, _LENGTHS = 46, 28
# Sizes of the records behind the directory: its end, the same in 64 bits, and the locator of that.
_END, _END64, _LOCATOR = 22, 56, 20


def verify_archive(path: Path) -> None:
    """Verify the zip archive at `path` as `open_verified` does. Raises CheckpointError, or OSError."""
    with path.open("rb") as file:
        open_verified(file, path)


def open_verified(file: IO[bytes], path: Path) -> zipfile.ZipFile:
    """Return the archive in an open file, once the directory and the checksum of every member have been verified.

    `path` is the name for messages. Raises CheckpointError.
    """
    hint = "use the previous checkpoint, or copy the file again"
    try:
        archive = zipfile.ZipFile(file)
        unpacked, size = sum(member.file_size for member in archive.infolist()), os.fstat(file.fileno()).st_size
        if unpacked > max(_MOST_UNPACKED, _MOST_TIMES * size):
            raise CheckpointError(
                f"{path} is {console.byte_size(size)} but would unpack to {console.byte_size(unpacked)}, which is "
                "implausible for weights",
                "save its tensors again with the program that wrote it",
            )
        broken = next((member.filename for member in archive.infolist() if not _is_intact(archive, member)), None)
        if broken is None and not _is_complete(archive, file):
            broken = "the directory"
    except CheckpointError:
        raise
    except Exception as error:  # what zipfile raises for a corrupt directory is not specified
        raise CheckpointError(f"{path} is corrupt or truncated: {first_line(error)}", hint) from error
    if broken is not None:
        raise CheckpointError(f"{path} is corrupt: {broken} in the archive is damaged", hint)
    return archive


def _is_intact(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a member has its checksum, and torch reads what zipfile reads."""
    # torch reads nothing for a member marked as a folder, and leaves the tensor uninitialized.
    if member.external_attr & _IS_FOLDER or member.flag_bits & _ENCRYPTED or member.volume:
        return False
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        return False
    try:
        with archive.open(member) as content:  # by entry: a name may occur twice
            while content.read(_CHUNK):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _is_complete(archive: zipfile.ZipFile, file: IO[bytes]) -> bool:
    """Whether the directory has as many entries and bytes as the records after it say; zipfile does not count."""
    file.seek(-_END - len(archive.comment), os.SEEK_END)
    end = file.tell()
    *counts, length = struct.unpack("<4x4HL6x", file.read(_END))
    file.seek(max(0, end - _LOCATOR))
    signature, disk, at, disks = struct.unpack("<4sLQL", file.read(_LOCATOR))
    if signature == b"PK\6\7":
        file.seek(at)
        signature, size, *counts, length = struct.unpack("<4sQ4x2L3Q8x", file.read(_END64))
        if (signature, at + 12 + size, disk, disks) != (b"PK\6\6", end - _LOCATOR, 0, 1):
            return False
        end = at
    entries = len(archive.infolist())
    if counts != [0, 0, entries, entries]:
        return False
    file.seek(end - length)
    directory = file.read(length)
    place = 0
    for _ in range(entries):
        place += _ENTRY + sum(struct.unpack_from("<3H", directory, place + _LENGTHS))
    return place == length
