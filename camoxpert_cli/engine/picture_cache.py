"""Where a run's cache of resized pictures lies, and whether there is room for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.data.cache import PictureCache, build_cache, cache_bytes, cache_path, is_complete
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.errors import UsageError

_GIB = 2**30
# Left free on the disk, for checkpoints and whatever else a machine needs.
_RESERVE = 2 * _GIB


def open_cache(choice: str, pairs: Sequence[Pair], img_size: int) -> PictureCache | None:
    """The cache of these pairs, built where it is not there yet; None without one.

    `choice` is a folder, "auto" for `default_folder` where there is room, or "off". Raises UsageError where a folder
    that was asked for cannot hold it, DataError where a pair cannot be read.
    """
    if choice == "off":
        return None
    size = _in_words(cache_bytes(len(pairs), img_size))
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
        return PictureCache(path, pairs, img_size)
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


def _in_words(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / 2**20:.0f} MiB"
