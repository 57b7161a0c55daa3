"""Writes images atomically, with a marker that identifies them as written by camox, and notes on how they were made."""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import cv2
from numpy.typing import NDArray

from camoxpert_cli import atomic
from camoxpert_cli.errors import UsageError

# How an image was made: names and values, without nesting.
Note: TypeAlias = Mapping[str, str | int | float | None]
NO_NOTE: Note = MappingProxyType({})


def _chunk(keyword: bytes, text: bytes) -> bytes:
    """A text chunk of a PNG."""
    body = b"tEXt" + keyword + b"\0" + text
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _comment(text: bytes) -> bytes:
    """A comment of a JPEG."""
    return b"\xff\xfe" + struct.pack(">H", 2 + len(text)) + text


# A text chunk in a PNG, directly after the mandatory first chunk, and a comment in a JPEG.
_MARKS = {".png": (33, _chunk(b"Software", b"camox")), ".jpg": (20, _comment(b"camox"))}
# A second one, directly after the marker, contains the note.
_NOTES = {".png": lambda text: _chunk(b"Comment", text), ".jpg": _comment}
_NOTE = re.compile(rb"\{[^{}]*\}")
_LONGEST_NOTE = 4096
_ENDS = {".png": b"\0\0\0\0IEND\xaeB`\x82", ".jpg": b"\xff\xd9"}


def write_image(path: Path, pixels: NDArray[Any], flag: str, *, new: bool = False, note: Note = NO_NOTE) -> None:
    """Write a .png or .jpg, BGR or gray; `new` if no file may be at `path` because none was there at the start.

    An image that has the same `note`, which another process made in the meantime, then stays. Raises UsageError whose
    hint names `flag`, the option that set the folder.
    """
    content = encoded(path.suffix, pixels, note=note)  # cv2.imwrite does not report a full disk
    if new and path.exists():
        if note and note_in(path) == note:
            return
        raise UsageError(f"another process wrote {path} in the meantime", f"choose another folder with {flag}")
    try:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", f"choose another folder with {flag}") from error


def encoded(suffix: str, pixels: NDArray[Any], options: Sequence[int] = (), note: Note = NO_NOTE) -> bytes:
    """Encode an image as a file with the marker and, unless it is empty, the `note`; `suffix` is .png or .jpg."""
    content = cv2.imencode(suffix, pixels, options)[1].tobytes()
    at, mark = _MARKS[suffix]
    noted = _NOTES[suffix](json.dumps(dict(note)).encode()) if note else b""
    return content[:at] + mark + noted + content[at:]


def is_own_image(path: Path) -> bool:
    """Return whether the file, a .png or .jpg, has the marker of `encoded`."""
    at, mark = _MARKS[path.suffix]
    with path.open("rb") as file:
        return file.read(at + len(mark))[at:] == mark


def note_in(path: Path) -> dict[str, Any]:
    """Return the note in a .png or .jpg that camox wrote; empty if it has none, as in earlier versions of camox."""
    at, mark = _MARKS[path.suffix]
    with path.open("rb") as file:
        start = file.read(at + len(mark) + _LONGEST_NOTE)[at:]
    found = _NOTE.search(start)
    if found is None or not start.startswith(mark + _NOTES[path.suffix](found[0])):
        return {}
    try:
        return dict(json.loads(found[0]))
    except (ValueError, RecursionError):
        return {}


def is_complete(path: Path) -> bool:
    """Return whether a .png or .jpg ends as every one does, unlike one whose copying was interrupted."""
    end = _ENDS[path.suffix]
    with path.open("rb") as file:
        file.seek(-min(len(end), file.seek(0, os.SEEK_END)), os.SEEK_END)
        return file.read() == end
