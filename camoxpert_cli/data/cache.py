"""Resized images and masks in one memory-mapped file.

The file contains `count` records, each an image as uint8 (S, S, 3) followed by its mask as uint8 (S, S) of 0 and 1.
Its name contains a digest of its sources, so a cache never goes stale: if any source changes, a new file is built.
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

# Increment when a change to reading or resizing produces different pixels.
_VERSION = 2
_UNUSED_SECONDS = 30 * 24 * 3600
_NAME = r"(images|pictures)-\d+px-[0-9a-f]{32}\.u8"  # pictures: camox 0.1


class ImageCache:
    """Reader for the records of a complete cache file."""

    def __init__(self, path: Path, pairs: Sequence[Pair], img_size: int) -> None:
        self.path = path
        self.img_size = img_size
        self.count = len(pairs)
        self._rows = {pair: row for row, pair in enumerate(pairs)}
        self._records = self._open()
        with suppress(OSError):  # owned by another user, or on a read-only disk
            os.utime(path)  # marks it as in use

    def read(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the image (S, S, 3) and mask (S, S) that `read_resized` returns for the pair."""
        side = self.img_size
        record = self._records[self._rows[pair]]
        return record[: 3 * side * side].reshape(side, side, 3), record[3 * side * side :].reshape(side, side)

    def _open(self) -> NDArray[np.uint8]:
        # Copy-on-write: callers may modify what they read without changing the file.
        return np.asarray(np.memmap(self.path, np.uint8, "c", shape=(self.count, 4 * self.img_size**2)))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the pixels: a worker that is not forked maps the file itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_records"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._records = self._open()


def cache_bytes(count: int, img_size: int) -> int:
    """Return the size in bytes of a cache of `count` pairs."""
    return 4 * count * img_size**2


def cache_path(folder: Path, pairs: Sequence[Pair], img_size: int) -> Path:
    """Return the path in `folder` of the cache for these pairs in this order, named after the state of all their files.

    Paths, sizes, and modification and change times stand in for the contents; programs cannot forge change times.
    Raises DataError for a missing file.
    """
    state = hashlib.sha256(f"{_VERSION} {cv2.__version__}".encode())
    for file in (file for pair in pairs for file in (pair.image, pair.mask)):
        status = status_of(file)
        row = (str(file.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        state.update(repr(row).encode(errors="surrogateescape"))
    return folder / f"images-{img_size}px-{state.hexdigest()[:32]}.u8"


def is_complete(path: Path, count: int, img_size: int) -> bool:
    """Return whether the cache file exists and is complete."""
    return path.is_file() and path.stat().st_size == cache_bytes(count, img_size)


def holds_cache(folder: Path) -> bool:
    """Return whether the folder contains a cache file."""
    return next(folder.glob("images-*.u8"), None) is not None


def build_cache(
    path: Path,
    pairs: Sequence[Pair],
    img_size: int,
    advance: Callable[[int, str], None],
    *,
    reserve: int = 0,
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Build the cache file unless it exists; several processes may call this at once, and one of them does the work.

    `advance` receives the number of newly finished pairs; `waiting` is called if another process is building a cache
    in the folder. Files in the folder that were not used for 30 days are removed. Raises DataError if a pair cannot
    be read, OSError if the folder is not writable or the file would leave less than `reserve` bytes free on the disk;
    no partial file remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _sole_builder(path.parent, waiting) as is_sole:
        if is_complete(path, len(pairs), img_size):
            return
        if is_sole:
            _sweep(path.parent)
        free = shutil.disk_usage(path.parent).free
        if free < cache_bytes(len(pairs), img_size) + reserve:
            kept = f", and {reserve / 2**30:.0f} GiB must stay free for checkpoints" if reserve else ""
            raise OSError(errno.ENOSPC, f"only {free / 2**30:.1f} GiB free{kept}")
        with atomic.replacing(path) as temporary, temporary.open("wb") as file:
            for image, mask in in_threads(partial(read_resized, img_size=img_size), pairs):
                file.write(image.tobytes())
                file.write(mask.tobytes())
                advance(1, "")


def _sweep(folder: Path) -> None:
    """Remove temporary files of killed processes and cache files that were not used for 30 days."""
    for path in folder.iterdir():
        if re.fullmatch(rf"\.{_NAME}\.tmp[0-9a-f-]+", path.name) or (
            re.fullmatch(_NAME, path.name) and path.stat().st_mtime < time.time() - _UNUSED_SECONDS
        ):
            path.unlink(missing_ok=True)


@contextmanager
def _sole_builder(folder: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Hold the folder's lock, which the system releases when a process dies.

    Yields False on a file system without locks: there, processes build in parallel and the last file written wins.
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


# Bytes kept free on the disk for checkpoints and everything else the machine needs.
_RESERVE = 2 * 2**30


def open_cache(choice: str, pairs: Sequence[Pair], img_size: int) -> ImageCache | None:
    """Return the cache of these pairs, building it if necessary; None if there is no cache.

    `choice` is a folder, "auto" for `default_folder` if it has enough space, or "off". Raises UsageError if the cache
    cannot be written to the given folder, DataError if a pair cannot be read.
    """
    if choice == "off":
        return None
    size = console.byte_size(cache_bytes(len(pairs), img_size))
    try:
        folder = default_folder() if choice == "auto" else Path(choice)
        path = cache_path(folder, pairs, img_size)
        if not is_complete(path, len(pairs), img_size):
            console.say(
                f"Cache: resizing {console.counted(len(pairs), 'pair')} to {img_size} px once, {size} in {folder}"
            )
            with console.progress("Caching", len(pairs)) as advance:
                build_cache(
                    path,
                    pairs,
                    img_size,
                    advance,
                    reserve=_RESERVE,
                    waiting=lambda: console.say(f"Cache: waiting for another process that is building one in {folder}"),
                )
        console.say(f"Cache: {path}")
        return ImageCache(path, pairs, img_size)
    except RuntimeError as error:  # of Path.home
        problem = f"{error} Set XDG_CACHE_HOME to the folder for caches."
    except OSError as error:
        problem = f"cannot write the cache of {size} to {folder}: {error.strerror}"
    if choice != "auto":
        raise UsageError(problem, "free some space, choose another folder with --cache DIR, or use --cache off")
    console.warn(f"images are not cached and are decoded again in every epoch: {problem}")
    return None


def default_folder() -> Path:
    """Return the folder `camox` in the user's cache folder. Raises RuntimeError if there is no home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "camox"
