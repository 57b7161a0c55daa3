"""Paths as people write them."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """`text` as a path, in which `~` and `~name` stand for home folders; whether there is anything does not matter.

    Raises ValueError with the reason in words for what no path can be: a name that is too long or holds a zero byte,
    links that lead in a circle, the home of a user that there is not.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no home folder for {Path(text).parts[0]}") from error
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ValueError(os.strerror(error.errno).lower()) from error
    except ValueError as error:
        raise ValueError("no file can have this name") from error
    return path
