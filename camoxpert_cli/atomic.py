"""Files that are either the old one or the whole new one, whenever the process dies."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write the file whose path it yields; on leaving, that file is flushed to the disk and takes `path`'s place.

    After an exception `path` is untouched and no temporary file is left.
    """
    # The random part is in the suffix, which torch leaves out of the name that it gives an archive's content.
    temporary = path.with_name(f".{path.name}.tmp{secrets.token_hex(6)}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The new name is durable only once its folder is; some file systems cannot flush one.
    with suppress(OSError):
        _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sweep(path: Path) -> None:
    """Remove what processes left that were killed while they were `replacing` the file at `path`."""
    for temporary in path.parent.glob(f".{path.name}.tmp*"):
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
