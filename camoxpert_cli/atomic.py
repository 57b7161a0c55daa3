"""Atomic file replacement: whenever the process dies, a file is either the old one or the complete new one."""

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

# Bytes of a name repeated in the temporary name: with the suffix it stays below 143, the lowest limit of a file system.
_LONGEST_NAME = 100
# Processes on other machines cannot be checked; their leftovers are removed at this age.
_ABANDONED_SECONDS = 24 * 3600
# Suffix of a temporary file's name: machine, process and a random number. Earlier versions wrote the last alone.
_ENDING = re.compile(r"(?:([0-9a-f]{8})-([0-9]{1,9})-)?[0-9a-f]+")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on exit, that file is flushed to disk and replaces `path`.

    The new file gets the permissions and the owner of the old one, if any. A link is replaced, its target stays. After
    an exception `path` is untouched and no temporary file is left. Raises OSError if `path` is something other than a
    regular file, such as a device.
    """
    with replacing_all([path]) as (temporary,):
        yield temporary


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Like `replacing`, for files that belong together: old and new files never coexist.

    If the process dies while the files are being moved into place, only some of the new ones exist.
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
    # New names are durable only once their folder is flushed; some file systems cannot do that.
    for folder in {path.parent for path in paths}:
        with suppress(OSError):
            _flush(folder)


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text` in UTF-8."""
    write_texts({path: text})


def write_texts(texts: Mapping[Path, str]) -> None:
    """Replace several files together with UTF-8 texts; unencodable characters, as in odd file names, are escaped."""
    with replacing_all([*texts]) as temporaries:
        for temporary, text in zip(temporaries, texts.values(), strict=True):
            temporary.write_text(text.encode("utf-8", "backslashreplace").decode(), encoding="utf-8")


def sweep(*paths: Path) -> None:
    """Remove temporary files of processes that were killed while `replacing` the files at `paths`.

    Files that a process is still writing stay.
    """
    wanted: dict[Path, set[str]] = {}
    for path in paths:
        wanted.setdefault(path.parent, set()).add(_shortened(path.name))
    for folder, names in wanted.items():
        entries: list[Path] = []
        with suppress(OSError):  # missing, or cannot be listed
            entries = [*folder.iterdir()]
        for entry in entries:
            name, _, rest = entry.name.rpartition(".tmp")
            if name[:1] == "." and name[1:] in names and (ending := _ENDING.fullmatch(rest)) is not None:
                with suppress(OSError):  # owned by another user in a shared folder, or not a file
                    if not _is_being_written(entry, ending):
                        entry.unlink()


def not_a_file(status: os.stat_result) -> str | None:
    """Return why a file cannot be replaced; None for a regular file, which can."""
    if stat.S_ISREG(status.st_mode):
        return None
    return os.strerror(errno.EISDIR) if stat.S_ISDIR(status.st_mode) else "it is a device, a pipe or a socket"


def _temporary(path: Path) -> Path:
    # The random part is in the suffix, which torch drops when it derives an archive's inner name.
    own = f"{_machine()}-{os.getpid()}-{secrets.token_hex(6)}"
    return path.with_name(f".{_shortened(path.name)}.tmp{own}")


def _shortened(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST_NAME else hashlib.sha256(encoded).hexdigest()


def _is_being_written(path: Path, ending: re.Match[str]) -> bool:
    """Return whether the process named in a temporary file's suffix is another one that is alive."""
    machine, process = ending.groups()
    if machine is None or int(process) == os.getpid():
        return False
    if machine != _machine():
        return time.time() - path.lstat().st_mtime < _ABANDONED_SECONDS
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
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
    """Copy permissions and, if allowed, the owner; skip a temporary file that is a hard link to another file."""
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
