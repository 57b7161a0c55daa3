"""Images that are written: whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray

from camoxpert_cli import atomic
from camoxpert_cli.errors import UsageError


def write_image(path: Path, pixels: NDArray[Any], flag: str) -> None:
    """In the format of the name's ending, BGR or grey. Raises UsageError that names `flag`, which gave the folder."""
    content = cv2.imencode(path.suffix, pixels)[1].tobytes()  # cv2.imwrite is silent about a full disk
    try:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", f"choose another folder with {flag}") from error
