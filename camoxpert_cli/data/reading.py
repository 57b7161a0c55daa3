"""Reads pictures and masks, and refuses what OpenCV would quietly repair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.errors import DataError


def read_image(path: Path) -> NDArray[np.uint8]:
    """The picture as uint8 (H, W, 3) RGB, turned as its EXIF entry asks. Raises DataError where it is unreadable.

    Turned, because that is what people see in every viewer, and what they drew the mask on; see `read_pair`.
    """
    return _decode_image(path, _read_bytes(path), cv2.IMREAD_COLOR)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The mask as uint8 (H, W) of 0 and 1: 1 where the grey value is above 127 and the pixel is not transparent.

    A transparent mask in a single colour is read from its alpha channel alone. Raises DataError where the file is
    unreadable or its values stop at 1, for such a mask would be empty.
    """
    raw = _decode(path, _read_bytes(path), cv2.IMREAD_UNCHANGED)
    if raw.dtype == np.uint16:
        raw = (raw >> 8).astype(np.uint8)
    grey = raw if raw.ndim == 2 else cv2.cvtColor(raw[..., :3], cv2.COLOR_BGR2GRAY)
    if grey.max() == 1:
        raise DataError(f"the mask {path} holds only 0 and 1, expected 0 and 255", "multiply its values by 255")
    foreground = grey > 127
    if raw.ndim == 3 and raw.shape[2] == 4 and raw[..., 3].min() < raw[..., 3].max():
        opaque = raw[..., 3] > 127
        foreground = opaque if grey.min() == grey.max() else opaque & foreground
    return foreground.astype(np.uint8)


def read_pair(image_path: Path, mask_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`read_image` and `read_mask` of one size. Raises DataError where their sizes differ.

    Some masks were drawn on the picture as it is stored, before the turn its EXIF entry asks for. Where only the
    stored orientation has the mask's size, it is the one returned.
    """
    mask = read_mask(mask_path)
    content = _read_bytes(image_path)
    image = _decode_image(image_path, content, cv2.IMREAD_COLOR)
    if image.shape[:2] == mask.shape:
        return image, mask
    stored = _decode_image(image_path, content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if stored.shape[:2] == mask.shape:
        return stored, mask
    raise DataError(
        f"{image_path} is {_size(image)} pixels (width × height), but its mask {mask_path} is {_size(mask)}",
        "a mask has the size of its picture: is it the mask of another one?",
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error


def _decode_image(path: Path, content: bytes, flags: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(_decode(path, content, flags), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _decode(path: Path, content: bytes, flags: int) -> NDArray[Any]:
    if content.startswith(b"\xff\xd8") and not _jpeg_is_complete(content):
        raise DataError(f"{path} is cut off: the end of the JPEG is missing", "copy or download the file again")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # an empty file, or a header that claims an absurd size
        pixels = None
    if pixels is None:
        raise DataError(f"{path} cannot be read as a picture", "open it in a viewer; copy or download it again")
    return pixels


def _jpeg_is_complete(content: bytes) -> bool:
    """Whether an end-of-image marker follows the start of the pixels.

    OpenCV pads a JPEG that is cut off with grey and says so on stderr only (a cut PNG or BMP it refuses). Within
    the pixels 0xFF is always followed by 0x00 or a restart number, so 0xFFD9 there is the end. The segments before
    them are stepped over, since a thumbnail in the EXIF data has an end of its own. Bytes after the end are fine:
    phones append films and depth maps.
    """
    at = 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != b"\xda":
        is_fill = content[at + 1 : at + 2] == b"\xff"
        at += 1 if is_fill else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return content.find(b"\xff\xd9", at) >= 0


def _size(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[1]}×{pixels.shape[0]}"
