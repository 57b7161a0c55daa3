"""Finds the images that files, folders and patterns refer to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from glob import escape, glob, has_magic
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.data.layouts import IMAGE_SUFFIXES, describe_unread, images_in
from camoxpert_cli.errors import DataError

_EXPECTED = "pass image files, folders of images, or patterns such as 'photos/**/*.jpg'"
_ANY_DEPTH = "**"


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the images of files, folders and patterns in the given order, those of a folder or pattern sorted by name.

    A folder contributes the images directly in it; `**` in a pattern matches any depth and visits each folder once,
    even if several links lead to it. Hidden files are skipped, and so are files without an image suffix, unless the
    pattern ends in their suffix or the file is named explicitly. A path with an image suffix that is not an image,
    such as a broken link, is included and fails when it is read. Raises DataError if any of `paths` yields no image.
    """
    return [image for path in paths for image in _images_of(path)]


def _images_of(path: Path) -> list[Path]:
    # Unlike the methods of Path, these return False for paths without access permission.
    if os.path.isfile(path):  # noqa: PTH113  # first, because a file name may contain pattern characters
        return [path]
    if os.path.isdir(path):  # noqa: PTH112
        images, others = images_in(path)
        problem, unread = f"no images in {path}", describe_unread(others)
    elif os.path.exists(path):  # noqa: PTH110
        raise DataError(f"{path} is neither a file nor a folder", _EXPECTED)
    elif has_magic(str(path)):
        suffixes = (IMAGE_SUFFIXES | {path.suffix.lower()}) - {""}
        images = sorted(
            match
            for match in dict.fromkeys(_matches(path.expanduser()))
            if match.suffix.lower() in suffixes
            and not match.name.startswith(".")  # macOS adds ._NAME.jpg
            and not os.path.isdir(match)  # noqa: PTH112
        )
        problem, unread = f"no image matches {path}", ""
    else:
        raise DataError(f"{path} not found, expected an image or a folder", _EXPECTED)
    if not images:
        raise DataError(f"{problem}: {unread}" if unread else problem, _EXPECTED)
    if unread:
        console.say(f"{path}: {unread}")
    return images


def _matches(pattern: Path) -> list[Path]:
    if _ANY_DEPTH not in pattern.parts:
        return [Path(name) for name in glob(str(pattern))]  # noqa: PTH207 (from any root)
    at = pattern.parts.index(_ANY_DEPTH)
    rest = Path(*pattern.parts[at + 1 :]).parts
    while rest[:1] == (_ANY_DEPTH,):
        rest = rest[1:]
    above = Path(*pattern.parts[:at])
    starts = _matches(above) if has_magic(str(above)) else [above]
    return [
        match
        for start in starts
        for folder in folders_below(start)
        for match in _matches(Path(escape(str(folder)), *(rest or ("*",))))
    ]


def folders_below(start: Path) -> Iterator[Path]:
    """Yield `start` and all folders below it that are not hidden, each once: links may form cycles."""
    seen = set()
    stack = [start]
    while stack:
        folder = stack.pop()
        try:
            status = folder.stat()
            with os.scandir(folder) as entries:
                below = sorted((each.name for each in entries if os.path.isdir(each)), reverse=True)  # noqa: PTH112
        except OSError:  # not readable, or deleted
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield folder
            stack += [folder / name for name in below if not name.startswith(".")]
