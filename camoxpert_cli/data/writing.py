"""Images that are written: whole or not at all, and with a mark by which they are known as camox's own."""

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

# A chunk of text in a PNG, right behind the one that has to be the first, and a comment in a JPEG.
_TEXT = b"tEXtSoftware\0camox"
_PNG_MARK = struct.pack(">I", len(_TEXT) - 4) + _TEXT + struct.pack(">I", zlib.crc32(_TEXT))
_PNG_MARK_AT = 33
_JPEG_MARK = b"\xff\xfe" + struct.pack(">H", 2 + len(b"camox")) + b"camox"
_JPEG_MARK_AT = 20
_MARKS = {".png": (_PNG_MARK_AT, _PNG_MARK), ".jpg": (_JPEG_MARK_AT, _JPEG_MARK)}


def write_image(path: Path, pixels: NDArray[Any], flag: str, *, new: bool = False) -> None:
    """As .png or .jpg, BGR or grey; `new` where no file was there before the work began.

    Raises UsageError that names `flag`, which gave the folder.
    """
    content = encoded(path.suffix, pixels)  # cv2.imwrite is silent about a full disk
    if new and path.exists():
        raise UsageError(f"another process has written {path} meanwhile", f"choose another folder with {flag}")
    try:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", f"choose another folder with {flag}") from error


def encoded(suffix: str, pixels: NDArray[Any], options: Sequence[int] = ()) -> bytes:
    """The file of an image, `suffix` .png or .jpg, with the mark."""
    content = cv2.imencode(suffix, pixels, options)[1].tobytes()
    at, mark = _MARKS[suffix]
    return content[:at] + mark + content[at:]


def is_own_image(path: Path) -> bool:
    """Whether the file, a .png or .jpg, is `encoded`."""
    at, mark = _MARKS[path.suffix]
    with path.open("rb") as file:
        return file.read(at + len(mark))[at:] == mark
