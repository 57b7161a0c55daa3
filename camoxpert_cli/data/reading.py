"""Reads images and masks, and rejects files that OpenCV would silently repair."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from traceback import clear_frames
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli.data.headers import jpeg_header, png_is_whole, stated_size
from camoxpert_cli.data.levels import OBJECT, SCORED_OBJECT, UnclearError, eight_bits, foreground_of
from camoxpert_cli.data.sizes import is_same_shape
from camoxpert_cli.errors import DataError
from camoxpert_cli.regular_file import read_regular

_REDUCED = {1: 0, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_AGAIN = "copy or download the file again"
_SINGLE = (b"\x89PNG", b"\xff\xd8", b"BM")  # PNG, JPEG and BMP
# Rewrites the masks in a folder so that every nonzero pixel is object. Must not contain quotes.
_REPAIR = (
    "import cv2, numpy, pathlib, sys; [cv2.imwrite(str(p), numpy.uint8(255) * "
    "(numpy.atleast_3d(cv2.imread(str(p), -1))[..., {channels}] > 0).any(2)) "
    "for p in pathlib.Path(sys.argv[1]).glob(sys.argv[2])]"
)
# An object that covers less than this share of the image is small: 28.8 % of COD10K's test objects (Electronics
# 14/6/1118).
SMALL_OBJECT = 0.03
_MOST_BYTES = 2**30
# More than any camera produces. With this limit no file needs 4 GB of memory, whatever its header claims; for masks it
# is half as large, because the arrays compared with them need twice the memory.
_BOUND = "OPENCV_IO_MAX_IMAGE_PIXELS"
_pixels = os.environ.get(_BOUND, "")
MOST_PIXELS = int(_pixels) if _pixels.isdecimal() else 200_000_000
MOST_MASK_PIXELS = MOST_PIXELS // 2
_LARGE = 30_000_000
_MOST_PASSES = 100  # of a progressive JPEG, which usually has about ten; each costs time but only a few bytes


class CutOffError(DataError):
    """A truncated file."""


@contextmanager
def within_memory(what: Path | str) -> Iterator[None]:
    """Raise DataError that names the image in place of any error due to insufficient memory."""
    try:
        yield
    except (MemoryError, cv2.error, RuntimeError) as error:
        is_short = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)  # of torch
        if is_short or getattr(error, "code", None) == cv2.Error.StsNoMem:
            clear_frames(error.__traceback__)  # which would keep what filled the memory as long as the error exists
            raise DataError(f"not enough memory for {what}", "shrink it, or close other programs") from error
        raise


def read_image(
    path: Path, img_size: int | None = None, alone: AbstractContextManager[object] | None = None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read an image as uint8 (H, W, 3) RGB, rotated according to its EXIF orientation, and its full height and width.

    The EXIF orientation is applied because every viewer does so, and masks are drawn on what the viewer shows; see
    `read_matching_image`. If the caller will shrink the image to `img_size`, a JPEG that is at least twice as large is
    decoded at a reduced size, a half, a quarter or an eighth but not below `img_size`, which is faster. After
    `resize_image`, the result differs from full decoding by 0.5 of 255 levels on average if the image is exactly 2, 4
    or 8 times as large, and by 2.3 to 4.3 in between (measured on photos of cats in hay and grass; the worst by 8);
    bilinear shrinking would differ by 4 to 10. `alone` is entered while a large image is decoded, because several at
    the same time could fill the memory. Raises DataError if the file is unreadable.
    """
    content = read_bytes(path)
    size = None if alone is None else stated_size(content)
    with alone if alone and size and size[0] * size[1] > _LARGE else nullcontext():
        return _decode_image(path, content, cv2.IMREAD_COLOR, img_size)


def read_size(path: Path) -> tuple[int, int]:
    """Return an image's height and width as stored, from its header if that is supported, see `stated_size`.

    Raises DataError if the file is unreadable.
    """
    content = read_bytes(path)
    height, width = stated_size(content) or decode(path, content, cv2.IMREAD_COLOR).shape[:2]
    return height, width


def read_mask(path: Path, above: int = OBJECT) -> NDArray[np.uint8]:
    """Read a mask as uint8 (H, W) of 0 and 1: 1 where its level, see `levels.levels_of`, exceeds `above`.

    Raises DataError if the file is unreadable or its values are ambiguous, see `levels.foreground_of`.
    """
    raw = read_single(path)
    try:
        return foreground_of(raw, above).view(np.uint8)
    except UnclearError as error:
        raise DataError(f"the mask {path} {error}", repair_command(path, raw)) from error


def read_scored_mask(path: Path) -> NDArray[np.uint8]:
    """Read a ground-truth mask for scoring: like `read_mask`, but 1 where the level is above 128."""
    return read_mask(path, SCORED_OBJECT)


def read_pair(
    image_path: Path, mask_path: Path, img_size: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read an image and its mask with `read_matching_image` and `read_mask`.

    Raises DataError if a file is unreadable or the sizes differ.
    """
    mask = read_mask(mask_path)
    return read_matching_image(image_path, (mask.shape[0], mask.shape[1]), mask_path, img_size), mask


def read_matching_image(
    image_path: Path, mask_size: tuple[int, int], mask_path: Path, img_size: int | None, *, resized: bool = False
) -> NDArray[np.uint8]:
    """Read an image like `read_image` for a mask of this height and width. Raises DataError if their sizes differ.

    Some masks were drawn on the image as stored, before the EXIF rotation. If only the stored orientation matches the
    mask's size, that orientation is returned. With `resized`, a matching aspect ratio is enough, see `is_same_shape`,
    because the result will be resized to the mask.
    """
    content = read_bytes(image_path)
    image, size = _decode_image(image_path, content, cv2.IMREAD_COLOR, img_size)
    if size == mask_size:
        return image
    stored, stored_size = _decode_image(image_path, content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, img_size)
    if stored_size == mask_size:
        return stored
    if resized and is_same_shape(size, mask_size):
        return image
    if resized and is_same_shape(stored_size, mask_size):
        return stored
    raise DataError(
        f"{image_path} is {format_image_size(size)} pixels (width × height), "
        f"but its mask {mask_path} is {format_image_size(mask_size)}",
        "check that the mask belongs to this image; camox check-data DATA lists all such pairs",
    )


def status_of(path: Path) -> os.stat_result:
    """Return the size and times of a file. Raises DataError if it does not exist."""
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error


def read_bytes(path: Path) -> bytes:
    """Read a regular file. Raises DataError if it does not exist or has more than a gigabyte."""
    try:
        return read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error


def decode(path: Path, content: bytes, flags: int, most_pixels: int = MOST_PIXELS) -> NDArray[Any]:
    """Decode a file's content like `cv2.imdecode`: 8 or 16 bits, one, three or four channels.

    Raises CutOffError or DataError that names `path`; for too many pixels, before allocating memory for them.
    """
    header = jpeg_header(content) if content.startswith(b"\xff\xd8") else None
    _refuse_size(path, stated_size(content) if header is None else header.size, most_pixels)
    # OpenCV pads a truncated JPEG with gray and warns only on stderr; some versions do the same with a PNG.
    if header is not None:
        if content.rfind(b"\xff\xd9", header.pixels) < 0:
            raise CutOffError(f"{path} is truncated: the end of the JPEG is missing", _AGAIN)
        if header.is_progressive and (passes := content.count(b"\xff\xda", header.pixels)) > _MOST_PASSES:
            raise DataError(
                f"{path} is a progressive JPEG with {passes} scans, expected at most {_MOST_PASSES}",
                "save it again as a baseline JPEG or PNG",
            )
    is_png = content.startswith(b"\x89PNG")
    if is_png and content.rfind(b"IEND") < 0:
        raise CutOffError(f"{path} is truncated: the end of the PNG is missing", _AGAIN)
    unreadable = DataError(
        f"{path} cannot be decoded as an image", "check it in an image viewer; copy or download it again"
    )
    if is_png and not png_is_whole(content):
        raise unreadable
    # OpenCV keeps the upper byte of 16 bits, which is black if only the lower one is used, and does not convert floats.
    is_deep = flags != cv2.IMREAD_UNCHANGED and (
        content.startswith((b"II", b"MM")) or (is_png and content[24:25] == b"\x10")
    )
    try:
        with within_memory(path):
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags | (cv2.IMREAD_ANYDEPTH if is_deep else 0))
    except cv2.error as error:  # an empty file, or a header with an absurd size
        pixels = None
        if "CV_IO_MAX_IMAGE" in str(error):
            raise _too_large(path, None, most_pixels) from error
    if pixels is None:
        raise unreadable
    _refuse_size(path, pixels.shape[:2], most_pixels)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4):
        raise DataError(f"{path} has {pixels.shape[2]} channels, expected 1, 3 or 4", "save it as a PNG")
    try:
        return eight_bits(pixels) if is_deep else pixels
    except UnclearError as error:
        raise DataError(f"the image {path} {error}", "save it with 8 bits per channel") from error


def read_single(path: Path) -> NDArray[Any]:
    """Read the pixels of a mask or a prediction as stored.

    Raises DataError if the file is unreadable or contains several frames or pages: the first may be any part of it.
    """
    content = read_bytes(path)
    pixels = decode(path, content, cv2.IMREAD_UNCHANGED, MOST_MASK_PIXELS)
    if not content.startswith(_SINGLE):
        try:
            _, pages = cv2.imdecodemulti(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED, range=(0, 2))
        except cv2.error as error:  # a second one that is broken
            raise DataError(f"{path} cannot be decoded as an image", _AGAIN) from error
        if len(pages) > 1:
            raise DataError(f"{path} contains several images, expected one", "save each image in a separate file")
    return pixels


def repair_command(path: Path, raw: NDArray[Any]) -> str:
    """Return shell commands that convert a folder of masks.

    One chooses from class indices. The other backs up the folder and rewrites it so that all nonzero pixels are object.
    """
    is_one_colour = raw.ndim == 3 and raw.shape[2] == 4 and (raw[..., :3] == raw[:1, :1, :3]).all()
    program = _REPAIR.format(channels="3:" if is_one_colour else ":3")
    folder = path.absolute().parent
    copy = shlex.join(["cp", "-r", str(folder), f"{folder}-before"])
    write = shlex.join(["python", "-c", program, str(folder), f"[!.]*{path.suffix}"])
    chosen = shlex.join(["camox", "import-labels", str(folder), "--images", "DIR", "--out", "DATA", "--class", "N"])
    return f"if some class indices are object: {chosen}; if every nonzero pixel is object: {copy} && {write}"


def _refuse_size(path: Path, size: tuple[int, int] | None, most: int) -> None:
    if size is not None and size[0] * size[1] > most:
        raise _too_large(path, size, most)


def _too_large(path: Path, size: tuple[int, int] | None, most: int) -> DataError:
    how_many = "too many pixels" if size is None else f"{format_image_size(size)} pixels"
    wanted = 5 * MOST_PIXELS if size is None else math.ceil(size[0] * size[1] * MOST_PIXELS / most)
    return DataError(
        f"{path} has {how_many}, expected at most {most / 1e6:g} million",
        f"shrink it, or raise the limit if there is enough memory: export {_BOUND}={wanted}",
    )


def format_image_size(size: tuple[int, ...]) -> str:
    """Format height and width as width × height."""
    return f"{size[1]}×{size[0]}"


def _decode_image(
    path: Path, content: bytes, flags: int, img_size: int | None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    stored = jpeg_header(content).size if img_size is not None and content.startswith(b"\xff\xd8") else None
    factor = 1 if stored is None or img_size is None else _reduction(stored, img_size)
    pixels = np.asarray(
        cv2.cvtColor(decode(path, content, flags | _REDUCED[factor]), cv2.COLOR_BGR2RGB), dtype=np.uint8
    )
    height, width = pixels.shape[:2]
    if stored is None or factor == 1:
        return pixels, (height, width)
    is_turned = (height, width) != _reduced(stored, factor)
    return pixels, (stored[1], stored[0]) if is_turned else stored


def _reduction(size: tuple[int, int], img_size: int) -> int:
    """The largest factor to divide a JPEG's sides by so that none falls below `img_size`: 1, 2, 4 or 8."""
    for factor in (8, 4, 2):
        height, width = _reduced(size, factor)
        # The reduced size must reveal whether the image was rotated.
        if min(height, width) >= img_size and (height != width or size[0] == size[1]):
            return factor
    return 1


def _reduced(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """Size after reduced-size decoding; libjpeg rounds up."""
    return -(-size[0] // factor), -(-size[1] // factor)
