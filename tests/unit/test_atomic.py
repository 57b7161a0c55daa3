from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from camoxpert_cli import atomic

OLD, NEW = b"old content", b"new content, of another length"


def write_half(path: Path, error: BaseException) -> None:
    with atomic.replacing(path) as temporary:
        temporary.write_bytes(NEW[:5])
        raise error


def test_replaces(tmp_path: Path) -> None:
    """The new content takes the old one's place, whole, and nothing else is left."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with atomic.replacing(path) as temporary:
        temporary.write_bytes(NEW)
        assert path.read_bytes() == OLD

    assert path.read_bytes() == NEW
    assert list(tmp_path.iterdir()) == [path]


def test_first_file(tmp_path: Path) -> None:
    """There need not be an old file, and there is none under the final name before the new one is whole."""
    path = tmp_path / "file"
    with atomic.replacing(path) as temporary:
        temporary.write_bytes(NEW)
        assert not path.exists()

    assert path.read_bytes() == NEW


@pytest.mark.parametrize("error", [RuntimeError("broken"), OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("exists", [True, False])
def test_error_while_writing(tmp_path: Path, error: BaseException, exists: bool) -> None:
    """After any error, Ctrl-C included, the old file is what it was and no temporary one is left."""
    path = tmp_path / "file"
    if exists:
        path.write_bytes(OLD)
    with pytest.raises(type(error)):
        write_half(path, error)

    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == ({"file": OLD} if exists else {})


def test_error_while_replacing(tmp_path: Path) -> None:
    """Where the final name cannot be taken, the temporary file goes as well."""
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="directory"), atomic.replacing(path) as temporary:
        temporary.write_bytes(NEW)

    assert list(tmp_path.iterdir()) == [path]


def test_no_folder(tmp_path: Path) -> None:
    """Without a folder to write to the error is that of the system, and no folder appears."""
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "nowhere" / "file"):
        pass

    assert list(tmp_path.iterdir()) == []


def test_text_is_utf8(tmp_path: Path) -> None:
    """Text is UTF-8 with its line ends as they are, whatever the locale."""
    atomic.write_text(tmp_path / "file", "Größe: 3 µm\nзмея\n")

    assert (tmp_path / "file").read_bytes() == "Größe: 3 µm\nзмея\n".encode()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """No file that is not ours is written over, whatever it is called."""
    for name in ("file.tmp", ".files.tmp"):
        (tmp_path / name).write_bytes(OLD)
    atomic.write_text(tmp_path / "file", "new")
    atomic.sweep(tmp_path / "file")

    assert all((tmp_path / name).read_bytes() == OLD for name in ("file.tmp", ".files.tmp"))


def test_what_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file's content before it takes the name, and then the folder, without which the name is not durable."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    flushed: list[tuple[int, bytes]] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: flushed.append((os.fstat(descriptor).st_ino, path.read_bytes()))
    )
    with atomic.replacing(path) as temporary:
        temporary.write_bytes(NEW)

    assert flushed == [(path.stat().st_ino, OLD), (tmp_path.stat().st_ino, NEW)]


def test_folder_that_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems cannot flush a folder; the file is in place all the same, and that is no error."""
    flush = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    atomic.write_text(tmp_path / "file", "new")

    assert (tmp_path / "file").read_text() == "new"
