from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from camoxpert_cli.errors import CheckpointError
from camoxpert_cli.model.weights_file import read_weights_file
from camoxpert_cli.regular_file import read_regular, sha256_of


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as each:
        each.bind(path.name)  # relative, for a socket's path has 108 bytes at most


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a named pipe": (os.mkfifo, "it is a named pipe, expected a regular file"),
    "a socket": (bind, "it is a socket, expected a regular file"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, expected a regular file"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "nothing": (lambda path: None, "No such file or directory"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
    "a circle of links": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """It is told at once, and nothing is waited for or read without an end."""
    monkeypatch.chdir(tmp_path)
    make, reason = ODD[kind]
    make(tmp_path / "odd.png")

    for read in (lambda path: read_regular(path, 10), sha256_of):
        with pytest.raises(OSError, match=reason) as caught:
            read(tmp_path / "odd.png")
        assert caught.value.strerror == reason


def test_names_that_no_file_can_have() -> None:
    """A zero byte, or half of a character, is no crash."""
    for name in ("a\0b", "a\ud800b"):
        with pytest.raises(OSError, match="invalid file name"):
            read_regular(Path(name), 10)
        with pytest.raises(OSError, match="invalid file name"):
            sha256_of(Path(name))


def test_size(tmp_path: Path) -> None:
    """A file may have as many bytes as were said, and is not opened further with one more."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    assert read_regular(path, 10) == b"0123456789"
    os.truncate(path, 2**40)  # it takes no room on the disk
    with pytest.raises(OSError, match="it has 1099511627776 bytes, expected at most 10"):
        read_regular(path, 10)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="only Linux has files that are made up as they are read")
def test_what_the_system_makes_up(tmp_path: Path) -> None:
    """Such files have no size: one would be taken for empty, another be read without an end."""
    (tmp_path / "preset.yaml").symlink_to("/proc/version")
    (tmp_path / "empty").touch()

    with pytest.raises(OSError, match="it reports no size, expected a regular file"):
        read_regular(tmp_path / "preset.yaml", 10)
    with pytest.raises(CheckpointError, match="is empty"):
        read_weights_file(tmp_path / "preset.yaml")
    assert read_regular(tmp_path / "empty", 10) == b""
    for name in ("preset.yaml", "empty"):
        with pytest.raises(OSError, match="it is empty"):
            sha256_of(tmp_path / name)


def test_digest(tmp_path: Path) -> None:
    """Of all bytes of a file, however large."""
    content = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(content)

    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
