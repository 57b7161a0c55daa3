"""Files that are either the old one or the whole new one, whenever the process dies."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Bytes of a name that a temporary one repeats: with what it adds, it stays below the 143 of the tightest file system.
_LONGEST_NAME = 100
# A process on another machine cannot be looked for; what one left is that old before it goes.
_ABANDONED_SECONDS = 24 * 3600
# What stands behind the name of a file in that of its temporary one: a machine, a process and a random number. Files
# written before have the last alone.
_ENDING = re.compile(r"(?:([0-9a-f]{8})-([0-9]{1,9})-)?[0-9a-f]+")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write the file whose path it yields; on leaving, that file is flushed to the disk and takes `path`'s place.

    It gets the permissions and the owner of the file before it, where there is one. A link to a file is replaced, and
    what it leads to stays. After an exception `path` is untouched and no temporary file is left. Raises OSError where
    something is at `path` that is no file, such as a device.
    """
    with replacing_all([path]) as (temporary,):
        yield temporary


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """`replacing` for files that belong together: there is never one of the old ones beside one of the new ones.

    A process that dies in the moment in which they take their places leaves some of the new ones alone.
    """
    before = [_before(path) for path in paths]
    temporaries = [_temporary(path) for path in paths]
    try:
        yield temporaries
        for temporary, status in zip(temporaries, before, strict=True):
            _hand_on(status, temporary)
            _flush(temporary)
        for path in paths if len(paths) > 1 else ():
            path.unlink(missing_ok=True)
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        raise
    # The new names are durable only once their folder is; some file systems cannot flush one.
    for folder in {path.parent for path in paths}:
        with suppress(OSError):
            _flush(folder)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8."""
    write_texts({path: text})


def write_texts(texts: Mapping[Path, str]) -> None:
    """Replace all of the files together by their texts in UTF-8; what is no text, as in odd names of files, escaped."""
    with replacing_all([*texts]) as temporaries:
        for temporary, text in zip(temporaries, texts.values(), strict=True):
            temporary.write_text(text.encode("utf-8", "backslashreplace").decode(), encoding="utf-8")


def sweep(*paths: Path) -> None:
    """Remove what processes left that were killed while they were `replacing` the files at `paths`.

    What a process is still writing stays.
    """
    wanted: dict[Path, set[str]] = {}
    for path in paths:
        wanted.setdefault(path.parent, set()).add(_shortened(path.name))
    for folder, names in wanted.items():
        entries: list[Path] = []
        with suppress(OSError):  # it is not there, or cannot be listed
            entries = [*folder.iterdir()]
        for entry in entries:
            name, _, rest = entry.name.rpartition(".tmp")
            if name[:1] == "." and name[1:] in names and (ending := _ENDING.fullmatch(rest)) is not None:
                with suppress(OSError):  # another user's where everybody may write, or no file
                    if not _is_being_written(entry, ending):
                        entry.unlink()


def not_a_file(status: os.stat_result) -> str | None:
    """What stands in the way of a file that would take its place; None for a regular file, which may be replaced."""
    if stat.S_ISREG(status.st_mode):
        return None
    return os.strerror(errno.EISDIR) if stat.S_ISDIR(status.st_mode) else "it is a device, a pipe or a socket"


def _temporary(path: Path) -> Path:
    # The random part is in the suffix, which torch leaves out of the name that it gives an archive's content.
    own = f"{_machine()}-{os.getpid()}-{secrets.token_hex(6)}"
    return path.with_name(f".{_shortened(path.name)}.tmp{own}")


def _shortened(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST_NAME else hashlib.sha256(encoded).hexdigest()


def _is_being_written(path: Path, ending: re.Match[str]) -> bool:
    """Whether the process that the end of a temporary file's name tells of is another one that lives."""
    machine, process = ending.groups()
    if machine is None or int(process) == os.getpid():
        return False
    if machine != _machine():
        return time.time() - path.lstat().st_mtime < _ABANDONED_SECONDS
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _machine() -> str:
    return f"{zlib.crc32(os.uname().nodename.encode()):08x}"


def _before(path: Path) -> os.stat_result | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if (why := not_a_file(status)) is not None:
        raise OSError(errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL, why, str(path))
    return status


def _hand_on(before: os.stat_result | None, temporary: Path) -> None:
    """Permissions and, where the system lets us, the owner; not to what is one more name of another file."""
    new = temporary.stat()
    if before is None or new.st_nlink > 1:
        return
    if (new.st_uid, new.st_gid) != (before.st_uid, before.st_gid):
        with suppress(OSError):
            os.chown(temporary, before.st_uid, before.st_gid)
    with suppress(OSError):  # a file system without permissions
        temporary.chmod(stat.S_IMODE(before.st_mode))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
