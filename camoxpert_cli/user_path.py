"""Paths as users type them."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """Return `text` as a path with `~` and `~name` expanded; it need not exist.

    Raises ValueError with the reason in words for an impossible path: a name that is too long or contains a null byte,
    circular links, or the home folder of an unknown user.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"no home folder found for {Path(text).parts[0]}") from error
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ValueError(os.strerror(error.errno).lower()) from error
    except ValueError as error:
        raise ValueError("invalid file name") from error
    return path
