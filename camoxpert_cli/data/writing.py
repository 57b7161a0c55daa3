"""Writes images atomically, with a marker that identifies them as written by camox."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray

from camoxpert_cli import atomic
from camoxpert_cli.errors import UsageError

# A text chunk in a PNG, directly after the mandatory first chunk, and a comment in a JPEG.
_TEXT = b"tEXtSoftware\0camox"
_PNG_MARK = struct.pack(">I", len(_TEXT) - 4) + _TEXT + struct.pack(">I", zlib.crc32(_TEXT))
_PNG_MARK_AT = 33
_JPEG_MARK = b"\xff\xfe" + struct.pack(">H", 2 + len(b"camox")) + b"camox"
_JPEG_MARK_AT = 20
_MARKS = {".png": (_PNG_MARK_AT, _PNG_MARK), ".jpg": (_JPEG_MARK_AT, _JPEG_MARK)}


def write_image(path: Path, pixels: NDArray[Any], flag: str, *, new: bool = False) -> None:
    """Write a .png or .jpg, BGR or gray; `new` if no file may be at `path` because none was there at the start.

    Raises UsageError whose hint names `flag`, the option that set the folder.
    """
    content = encoded(path.suffix, pixels)  # cv2.imwrite does not report a full disk
    if new and path.exists():
        raise UsageError(f"another process wrote {path} in the meantime", f"choose another folder with {flag}")
    try:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", f"choose another folder with {flag}") from error


def encoded(suffix: str, pixels: NDArray[Any], options: Sequence[int] = ()) -> bytes:
    """Encode an image as a file with the marker; `suffix` is .png or .jpg."""
    content = cv2.imencode(suffix, pixels, options)[1].tobytes()
    at, mark = _MARKS[suffix]
    return content[:at] + mark + content[at:]


def is_own_image(path: Path) -> bool:
    """Return whether the file, a .png or .jpg, has the marker of `encoded`."""
    at, mark = _MARKS[path.suffix]
    with path.open("rb") as file:
        return file.read(at + len(mark))[at:] == mark
