"""Folders for what processes that work together tell each other; those of commands that were killed are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from camoxpert_cli.errors import UsageError

_PREFIX = "camox-"
# Marks such a folder, and is locked as long as the process lives that made it: the system itself takes the lock back.
_MARK = ".in-use"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder, which is gone in the end. Before, what is left of processes that were killed is removed.

    Raises UsageError where none can be made.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
    except OSError as error:
        raise UsageError(
            f"no temporary folder can be made: {error.strerror}",
            "free some space, or set TMPDIR to a folder that has some",
        ) from error
    with made as name:
        folder = Path(name)
        _sweep(folder.parent)
        # Locked before it has its name: an unlocked one belongs to nobody. Where there are no locks none is marked.
        descriptor = os.open(folder / f"{_MARK}.new", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / f"{_MARK}.new").rename(folder / _MARK)
            yield folder
        finally:
            os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove this user's folders whose process has ended; anything else of such a name stays, links too."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            descriptor = os.open(folder / _MARK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
