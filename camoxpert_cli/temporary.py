"""Temporary folders through which cooperating processes communicate; leftovers of killed commands are removed."""

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
# Marks such a folder, and stays locked while the process that created it lives: the system releases the lock.
_MARK = ".in-use"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder and remove it on exit; folders left by killed processes are removed first.

    Raises UsageError if it cannot be created.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
    except OSError as error:
        raise UsageError(
            f"a temporary folder cannot be created: {error.strerror}",
            "free some space, or set TMPDIR to a folder with free space",
        ) from error
    with made as name:
        folder = Path(name)
        _sweep(folder.parent)
        # Locked before it gets its name: an unlocked mark means an abandoned folder. Without locks there is no mark.
        descriptor = os.open(folder / f"{_MARK}.new", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / f"{_MARK}.new").rename(folder / _MARK)
            yield folder
        finally:
            os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove this user's folders whose process has ended; anything else with such a name stays, links included."""
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
