"""Resized images and masks in one file that is mapped into memory.

A file holds `count` records, each the image uint8 (S, S, 3) and then the mask uint8 (S, S) of 0 and 1. Its name
carries a digest of what it was made from, so that it never goes stale: where anything changed, another file is made.
Workers and other processes share its pages.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli import atomic, console
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.reading import status_of
from camoxpert_cli.data.resizing import read_resized
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.errors import UsageError

# Changes where reading or resizing gives other pixels.
_VERSION = 2
_UNUSED_SECONDS = 30 * 24 * 3600
_NAME = r"pictures-\d+px-[0-9a-f]{32}\.u8"


class ImageCache:
    """Reads the records of a complete cache file."""

    def __init__(self, path: Path, pairs: Sequence[Pair], img_size: int) -> None:
        self.path = path
        self.img_size = img_size
        self.count = len(pairs)
        self._rows = {pair: row for row, pair in enumerate(pairs)}
        self._records = self._open()
        with suppress(OSError):  # somebody else's, or on a read-only disk
            os.utime(path)  # it is in use

    def read(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """What `read_resized` gives for the pair: image (S, S, 3) and mask (S, S)."""
        side = self.img_size
        record = self._records[self._rows[pair]]
        return record[: 3 * side * side].reshape(side, side, 3), record[3 * side * side :].reshape(side, side)

    def _open(self) -> NDArray[np.uint8]:
        # Copy-on-write: what is read may be written to, and the file stays as it is.
        return np.asarray(np.memmap(self.path, np.uint8, "c", shape=(self.count, 4 * self.img_size**2)))

    def __getstate__(self) -> dict[str, Any]:
        """Without the pixels: a worker that is not forked maps the file itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_records"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._records = self._open()


def cache_bytes(count: int, img_size: int) -> int:
    """The size of a cache of `count` pairs."""
    return 4 * count * img_size**2


def cache_path(folder: Path, pairs: Sequence[Pair], img_size: int) -> Path:
    """The file in `folder` for these pairs in this order, named after the state of every one of their files.

    Paths, sizes and times of change stand for their contents; the system sets the latter whatever a program claims.
    Raises DataError for a file that is not there.
    """
    state = hashlib.sha256(f"{_VERSION} {cv2.__version__}".encode())
    for file in (file for pair in pairs for file in (pair.image, pair.mask)):
        status = status_of(file)
        row = (str(file.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        state.update(repr(row).encode(errors="surrogateescape"))
    return folder / f"pictures-{img_size}px-{state.hexdigest()[:32]}.u8"


def is_complete(path: Path, count: int, img_size: int) -> bool:
    """Whether the cache file is there and whole."""
    return path.is_file() and path.stat().st_size == cache_bytes(count, img_size)


def holds_cache(folder: Path) -> bool:
    """Whether images were cached there."""
    return next(folder.glob("pictures-*.u8"), None) is not None


def build_cache(
    path: Path,
    pairs: Sequence[Pair],
    img_size: int,
    advance: Callable[[int, str], None],
    *,
    reserve: int = 0,
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Make the cache file unless it is there; several processes may do so at once, and one of them does the work.

    `advance` is told how many more pairs are done, and `waiting` is called where another process is at work. Files in
    the folder that were not used for a month are removed. Raises DataError for a pair that cannot be read, OSError
    where the folder cannot be written or the file would leave less than `reserve` bytes on the disk; no file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _sole_builder(path.parent, waiting) as is_sole:
        if is_complete(path, len(pairs), img_size):
            return
        if is_sole:
            _sweep(path.parent)
        free = shutil.disk_usage(path.parent).free
        if free < cache_bytes(len(pairs), img_size) + reserve:
            raise OSError(errno.ENOSPC, f"{free / 2**30:.1f} GiB are free, of which {reserve / 2**30:.0f} are kept")
        with atomic.replacing(path) as temporary, temporary.open("wb") as file:
            for image, mask in in_threads(partial(read_resized, img_size=img_size), pairs):
                file.write(image.tobytes())
                file.write(mask.tobytes())
                advance(1, "")


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed left, and what was not used for a month."""
    for path in folder.iterdir():
        if re.fullmatch(rf"\.{_NAME}\.tmp[0-9a-f-]+", path.name) or (
            re.fullmatch(_NAME, path.name) and path.stat().st_mtime < time.time() - _UNUSED_SECONDS
        ):
            path.unlink(missing_ok=True)


@contextmanager
def _sole_builder(folder: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Hold the folder's lock, which the system takes back from a process that dies.

    Yields False on a file system without locks: there processes build side by side, and the last one's file stays.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        is_sole = False
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            is_sole = True
        yield is_sole
    finally:
        os.close(descriptor)


# Left free on the disk, for checkpoints and whatever else a machine needs.
_RESERVE = 2 * 2**30


def open_cache(choice: str, pairs: Sequence[Pair], img_size: int) -> ImageCache | None:
    """The cache of these pairs, built where it is not there yet; None without one.

    `choice` is a folder, "auto" for `default_folder` where there is room, or "off". Raises UsageError where a folder
    that was asked for cannot hold it, DataError where a pair cannot be read.
    """
    if choice == "off":
        return None
    size = console.byte_size(cache_bytes(len(pairs), img_size))
    try:
        folder = default_folder() if choice == "auto" else Path(choice)
        path = cache_path(folder, pairs, img_size)
        if not is_complete(path, len(pairs), img_size):
            console.say(f"Cache: {len(pairs)} pairs at {img_size} px, {size}, are resized once into {folder}")
            with console.progress("Caching", len(pairs)) as advance:
                build_cache(
                    path,
                    pairs,
                    img_size,
                    advance,
                    reserve=_RESERVE,
                    waiting=lambda: console.say(f"Cache: another process is at work in {folder}; waiting for it"),
                )
        console.say(f"Cache: {path}")
        return ImageCache(path, pairs, img_size)
    except RuntimeError as error:  # of Path.home
        problem = f"{error} XDG_CACHE_HOME can name a folder for caches."
    except OSError as error:
        problem = f"{folder} cannot hold the cache of {size}: {error.strerror}"
    if choice != "auto":
        raise UsageError(problem, "free some space, choose another folder with --cache, or --cache off")
    console.warn(f"pictures are not cached, and decoded in every epoch: {problem}")
    return None


def default_folder() -> Path:
    """`camox` below the user's folder for caches. Raises RuntimeError where there is no home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "camox"
