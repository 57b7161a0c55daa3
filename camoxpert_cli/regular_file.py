"""Files that are read whole: regular ones only, up to a size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises OSError, with the reason in words as its `strerror`, for any other: a pipe would be waited for, and a device
    such as /dev/zero read without an end.
    """
    try:
        with open(path, "rb", opener=_open) as file:  # Path.open takes no opener
            status = os.fstat(file.fileno())
            _refuse_unless_regular(status.st_mode, path)
            if status.st_size > most:
                raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, expected {most} at most", str(path))
            content = file.read(status.st_size)
            if not content and file.read(1):  # what the system makes up as it is read, such as /proc/kmsg
                raise OSError(errno.EINVAL, "it has no size, expected a regular file", str(path))
            return content
    except ValueError as error:  # a zero byte in its name, or what no file system can hold
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NONBLOCK)  # a pipe that nobody writes to would be waited for
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):  # a socket, on Linux and on macOS
            _refuse_unless_regular(os.stat(path).st_mode, path)  # noqa: PTH116
        raise


def _refuse_unless_regular(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, expected a regular file", str(path))
