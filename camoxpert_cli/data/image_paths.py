"""Images that were asked for by files, folders and patterns."""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.data.layouts import IMAGE_SUFFIXES, unread_in
from camoxpert_cli.errors import DataError

_EXPECTED = "give picture files, folders of pictures, or patterns such as 'photos/**/*.jpg'"


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The images of files, folders and patterns, in the order given and each folder's and pattern's by name.

    A folder's are those directly in it; `**` in a pattern goes to any depth. Hidden files are passed over, and so is
    what has no image's suffix, unless the pattern ends in that suffix or the file itself was named. Raises DataError
    for each of `paths` that gives no image.
    """
    return [image for path in paths for image in _images_of(path)]


def _images_of(path: Path) -> list[Path]:
    if path.is_file():  # first, for names may hold what else would make a pattern
        return [path]
    suffixes = IMAGE_SUFFIXES
    if path.is_dir():
        found, problem = list(path.iterdir()), f"no pictures in {path}"
    elif has_magic(str(path)):
        found = [Path(name) for name in glob(str(path.expanduser()), recursive=True)]  # noqa: PTH207 (from any root)
        suffixes, problem = suffixes | {path.suffix.lower()}, f"no picture matches {path}"
    else:
        raise DataError(f"there is no picture or folder {path}", _EXPECTED)
    images = sorted(
        entry
        for entry in found
        if entry.suffix.lower() in suffixes - {""} and not entry.name.startswith(".") and entry.is_file()
    )  # macOS adds ._NAME.jpg
    unread = unread_in([path]) if path.is_dir() else ""
    if not images:
        raise DataError(f"{problem}: {unread}" if unread else problem, _EXPECTED)
    if unread:
        console.say(f"{path}: {unread}")
    return images
