"""Checks of the files that a command is about to write, made before its work starts.

Only files written by camox are ever replaced, and only on request.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from camoxpert_cli.atomic import not_a_file
from camoxpert_cli.errors import UsageError


def check_targets(
    paths: Sequence[Path],
    hint: str,
    *,
    is_ours: Callable[[Path], bool],
    overwrite: bool,
    inputs: Iterable[Path] = (),
    beside: Iterable[Path] = (),
    taken: Callable[[Path], str] = lambda path: f"{path} already exists",
) -> None:
    """Raise UsageError unless all `paths` can be written without overwriting files of other programs.

    An existing file may be replaced with `overwrite`, if it `is_ours` and is none of the `inputs`. A link counts as the
    file it points to. `beside` are further files that will be written and were checked before. `hint` is what to do
    instead; `taken` returns the message for an existing file without `overwrite`. Creates no file and no folder.
    """
    folders: dict[Path, Path] = {}
    names = {Path(os.path.realpath(path.parent), path.name): path for path in beside}
    read: dict[tuple[int, int], Path] | None = None
    for path in paths:
        _refuse_dash(path, hint)
        if path.name in ("", ".."):
            raise UsageError(f"{path} is a folder, expected a file", hint)
        if path.parent not in folders:
            folders[path.parent] = check_folder(path.parent, hint)
        _refuse_name(path.name, folders[path.parent], hint)
        real = folders[path.parent] / path.name
        if real in names:
            raise UsageError(f"two files would be written to {path}", hint)
        names[real] = path
        if (status := _status(real, path, hint)) is None:
            continue
        if read is None:
            read = {(found.st_dev, found.st_ino): each for each in inputs if (found := _status_or_none(each))}
        if (source := read.get((status.st_dev, status.st_ino))) is not None:
            raise UsageError(f"{path} would overwrite {source}, which is an input", hint)
        if not is_ours(real):
            raise UsageError(f"{path} already exists and was not written by camox; not overwritten", hint)
        if not overwrite:
            raise UsageError(taken(path), f"{hint}, or add --overwrite to replace it")
    for each in {real.parent for real in names}:
        if clash := next((names[above] for above in (each, *each.parents) if above in names), None):
            raise UsageError(f"{clash} would have to be both a file and a folder", hint)


def check_parent(path: Path) -> None:
    """Raise UsageError if the folder of one file does not exist: that is more often a typo than a new folder."""
    if not os.path.isdir(path.parent):  # noqa: PTH112 -- False for impossible names
        raise UsageError(
            f"{path.name} cannot be written: folder {path.parent} does not exist",
            f"mkdir -p {shlex.quote(str(path.parent))}",
        )


def is_file_of(path: Path, other: Path) -> bool:
    """Return whether both paths name the same existing file."""
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False


def check_folder(folder: Path, hint: str) -> Path:
    """Return `folder` with links resolved. Creates nothing.

    Raises UsageError unless files can be written to it or, if it is missing, it can be created.
    """
    _refuse_dash(folder, hint)
    if not all(is_plain(part) or part == ".." for part in folder.parts if part != folder.anchor):
        raise UsageError(f"{str(folder)!r} is not a valid folder name", hint)
    for each in (folder, *folder.parents):
        if os.path.islink(each) and not os.path.exists(each):  # noqa: PTH110, PTH114 -- False for impossible names
            raise UsageError(f"{each} is a link to {each.readlink()}, which does not exist", hint)
    try:
        there = real = Path(os.path.realpath(folder))
        while not os.path.lexists(there):
            _refuse_name(there.name, there.parent, hint)
            there = there.parent
        with tempfile.TemporaryFile(dir=there) as probe:  # unnamed if the file system supports that
            probe.write(b"\0")
    except NotADirectoryError as error:
        why = "is a file, expected a folder" if there == real else f"cannot be created: {there} is a file"
        raise UsageError(f"{folder} {why}", hint) from error
    except OSError as error:
        why = "written to" if there == real else "created"
        raise UsageError(f"{folder} cannot be {why}: {error.strerror}", hint) from error
    return real


def is_plain(name: str) -> bool:
    """Return whether `name` is valid for a file or folder inside another one: no path, nothing that leads elsewhere."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def within(folder: Path, name: str, hint: str) -> Path:
    """Return the path of `name` directly in `folder`. Raises UsageError for a name that would lead elsewhere."""
    if not is_plain(name):
        raise UsageError(f"{name!r} is not a valid name for a file or folder in {folder}", hint)
    return folder / name


def _refuse_dash(path: Path, hint: str) -> None:
    if path.parts[:1] == ("-",):
        raise UsageError("- is not accepted as a file or folder: camox does not write files to stdout", hint)


def _refuse_name(name: str, folder: Path, hint: str) -> None:
    """Raise UsageError for a name that the file system of `folder`, or of its nearest existing parent, cannot store."""
    if not is_plain(name):
        raise UsageError(f"{name!r} is not a valid name for a file or folder", hint)
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    size, most = len(os.fsencode(name)), os.pathconf(folder, "PC_NAME_MAX")
    if size > most > 0:  # some FUSE file systems report no limit
        raise UsageError(f"the name {name} has {size} bytes, more than the {most} that {folder} allows", hint)


def _status(real: Path, path: Path, hint: str) -> os.stat_result | None:
    """Return the status of the file at `path`, None if there is none. Raises UsageError for anything but a file."""
    try:
        status = real.stat()
    except FileNotFoundError:
        if real.is_symlink():
            raise UsageError(f"{path} is a link to {real.readlink()}, which does not exist", hint) from None
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint) from error
    if (why := not_a_file(status)) is not None:
        raise UsageError(f"{path} cannot be written: {why}", hint)
    return status


def _status_or_none(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None
