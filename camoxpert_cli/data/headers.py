"""Parses image headers before decoding: a file of a few kilobytes can request gigabytes of memory."""

from __future__ import annotations

import struct
from typing import NamedTuple

_WIDTH, _HEIGHT = 256, 257  # tags of TIFF
_SHORT = 3


def stated_size(content: bytes) -> tuple[int, int] | None:
    """Return height and width from the header; None if they are not found or the format is unsupported.

    Supports JPEG, PNG, BMP, GIF and TIFF.
    """
    if content.startswith(b"\xff\xd8"):
        return jpeg_header(content).size
    try:
        if content.startswith(b"\x89PNG"):
            width, height = struct.unpack_from(">II", content, 16)
        elif content.startswith(b"BM"):
            is_old = content[14:18] == b"\x0c\0\0\0"
            width, height = struct.unpack_from("<HH" if is_old else "<ii", content, 18)
        elif content.startswith(b"GIF8"):
            width, height = struct.unpack_from("<HH", content, 6)
        elif content.startswith((b"II*\0", b"MM\0*")):
            width, height = _of_tiff(content)
        else:
            return None
    except (struct.error, KeyError):  # truncated, or without a size
        return None
    return abs(height), abs(width)  # the height of a top-down BMP is negative


def _of_tiff(content: bytes) -> tuple[int, int]:
    """Width and height of the first page, the one that is decoded."""
    order = "<" if content.startswith(b"II") else ">"
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    found = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        if tag in (_WIDTH, _HEIGHT):
            (found[tag],) = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", content, entry + 8)
    return found[_WIDTH], found[_HEIGHT]


class JpegHeader(NamedTuple):
    """A JPEG's height and width as stored, or None; the offset of its pixel data; and whether it is progressive."""

    size: tuple[int, int] | None
    pixels: int
    is_progressive: bool


def jpeg_header(content: bytes) -> JpegHeader:
    """Parse the part of a JPEG that precedes its pixel data.

    Within the pixel data, 0xFF is always followed by 0x00 or a restart number, so 0xFFD9 there is the end. The segments
    before it are skipped, because an EXIF thumbnail has its own size and end marker; bytes between segments are
    ignored, as in libjpeg. Bytes after the end are allowed: phones append videos and depth data.
    """
    size, is_progressive, at = None, False, 2
    while (at := content.find(b"\xff", at)) >= 0 and content[at + 1 : at + 2] not in (b"", b"\xda"):
        marker = content[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:  # a fill byte, or a marker without a segment
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # frame headers, except tables
            height, width = (int.from_bytes(content[at + start : at + start + 2], "big") for start in (5, 7))
            size = (height, width) if height and width else None
            is_progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return JpegHeader(size, at if at >= 0 else len(content), is_progressive)


def png_is_whole(content: bytes) -> bool:
    """Return whether a PNG's chunks lead to its end; OpenCV allocates a chunk's declared length before reading it."""
    at = 8
    while (kind := content[at + 4 : at + 8]) != b"IEND":
        if len(kind) < 4:
            return False
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return True
