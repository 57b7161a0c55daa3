"""Images that were asked for by files, folders and patterns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from glob import escape, glob, has_magic
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.data.layouts import IMAGE_SUFFIXES, describe_unread, images_in
from camoxpert_cli.errors import DataError

_EXPECTED = "give picture files, folders of pictures, or patterns such as 'photos/**/*.jpg'"
_ANY_DEPTH = "**"


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The images of files, folders and patterns, in the order given and each folder's and pattern's by name.

    A folder's are those directly in it; `**` in a pattern goes to any depth, into each folder once, by whatever links
    it is reached. Hidden files are passed over, and so is what has no image's suffix, unless the pattern ends in that
    suffix or the file itself was named. What has an image's suffix and is none, such as a link that leads nowhere, is
    among them, and an error for whoever reads it. Raises DataError for each of `paths` that gives no image.
    """
    return [image for path in paths for image in _images_of(path)]


def _images_of(path: Path) -> list[Path]:
    # Unlike Path's own, these are False for what may not be looked at.
    if os.path.isfile(path):  # noqa: PTH113  # first, for names may hold what else would make a pattern
        return [path]
    if os.path.isdir(path):  # noqa: PTH112
        images, others = images_in(path)
        problem, unread = f"no pictures in {path}", describe_unread(others)
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
        problem, unread = f"no picture matches {path}", ""
    else:
        raise DataError(f"there is no picture or folder {path}", _EXPECTED)
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
        for folder in _folders(start)
        for match in _matches(Path(escape(str(folder)), *(rest or ("*",))))
    ]


def _folders(start: Path) -> Iterator[Path]:
    """`start` and all folders below it that are not hidden, each once: links may lead in circles."""
    seen = set()
    stack = [start]
    while stack:
        folder = stack.pop()
        try:
            status = folder.stat()
            with os.scandir(folder) as entries:
                below = sorted((each.name for each in entries if os.path.isdir(each)), reverse=True)  # noqa: PTH112
        except OSError:  # it may not be looked into, or is gone
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield folder
            stack += [folder / name for name in below if not name.startswith(".")]
