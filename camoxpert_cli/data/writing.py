"""Images that are written: whole or not at all, and with a mark by which they are known as camox's own."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray

from camoxpert_cli import atomic
from camoxpert_cli.errors import UsageError

# A chunk of text in a PNG, right behind the one that has to be the first, and a comment in a JPEG.
_TEXT = b"tEXtSoftware\0camox"
_PNG_MARK = struct.pack(">I", len(_TEXT) - 4) + _TEXT + struct.pack(">I", zlib.crc32(_TEXT))
_PNG_MARK_AT = 33
_JPEG_MARK = b"\xff\xfe" + struct.pack(">H", 2 + len(b"camox")) + b"camox"
_JPEG_MARK_AT = 20
_MARKS = {".png": (_PNG_MARK_AT, _PNG_MARK), ".jpg": (_JPEG_MARK_AT, _JPEG_MARK)}


def write_image(path: Path, pixels: NDArray[Any], flag: str) -> None:
    """As .png or .jpg, BGR or grey. Raises UsageError that names `flag`, which gave the folder."""
    content = cv2.imencode(path.suffix, pixels)[1].tobytes()  # cv2.imwrite is silent about a full disk
    at, mark = _MARKS[path.suffix]
    try:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(content[:at] + mark + content[at:])
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", f"choose another folder with {flag}") from error


def is_own_image(path: Path) -> bool:
    """Whether `write_image` wrote the file, a .png or .jpg."""
    at, mark = _MARKS[path.suffix]
    with path.open("rb") as file:
        return file.read(at + len(mark))[at:] == mark
