"""What a command may write to, and what it leaves alone."""

from __future__ import annotations

import errno
import io
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camoxpert_cli.errors import UsageError
from camoxpert_cli.targets import check_folder, check_parent, check_targets, is_plain, within


def check(*paths: Path, overwrite: bool = True, **options: Any) -> None:
    """Every file is camox's own, so that nothing but what is tested speaks against it."""
    check_targets(paths, "choose another", **{"is_ours": lambda _: True, "overwrite": overwrite, **options})


def refusal(*paths: Path, **options: Any) -> UsageError:
    """Why nothing is written; nothing was made, nor taken away."""
    with pytest.raises(UsageError) as caught:
        check(*paths, **options)
    assert "\n" not in caught.value.message
    assert caught.value.hint.startswith("choose another")
    return caught.value


def test_new_files(tmp_path: Path) -> None:
    """Files in folders that are there and that are not are fine, and none of them is made."""
    check(tmp_path / "a", tmp_path / "new" / "deep" / "a", tmp_path / "new" / "b", overwrite=False)

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there(tmp_path: Path) -> None:
    """Only what camox wrote is replaced, with --overwrite, which is suggested for nothing else."""
    (tmp_path / "a").write_bytes(b"mine")

    error = refusal(tmp_path / "a", overwrite=False)
    assert (error.message, "--overwrite" in error.hint) == (f"{tmp_path / 'a'} already exists", True)
    for overwrite in (False, True):
        error = refusal(tmp_path / "a", is_ours=lambda _: False, overwrite=overwrite)
        assert "was not written by camox" in error.message
        assert "--overwrite" not in error.hint
    check(tmp_path / "a")


def device(path: Path) -> None:
    path.symlink_to(os.devnull)


def bound_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as server:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{descriptor}/{path.name}")  # the path itself may be too long for a socket
        finally:
            os.close(descriptor)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "cannot be written: Is a directory"),
        (os.mkfifo, "a device, a pipe or a socket"),
        (bound_socket, "a device, a pipe or a socket"),
        (device, "a device, a pipe or a socket"),
        (lambda path: path.symlink_to("gone"), "is a link to gone, which does not exist"),
        (lambda path: path.symlink_to(path), "Too many levels"),
    ],
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    """Nothing takes the place of a folder, a device, a pipe, a socket or a link that leads nowhere."""
    make(tmp_path / "a")

    for overwrite in (False, True):
        assert message in refusal(tmp_path / "a", overwrite=overwrite).message
    assert os.path.lexists(tmp_path / "a")


@pytest.mark.parametrize("path", [".", "..", "/", "a/.."])
def test_names_of_folders(path: str) -> None:
    """They are what they are, and no file of an empty name."""
    assert refusal(Path(path)).message == f"{path} is a folder, expected a file"


@pytest.mark.parametrize("name", ["in", "link", "hard", "folder/in", "new/../in"])
def test_what_is_read_is_never_replaced(tmp_path: Path, name: str) -> None:
    """By whatever name: a link, a second name, a folder that is a link."""
    (tmp_path / "in").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("in")
    os.link(tmp_path / "in", tmp_path / "hard")
    (tmp_path / "folder").symlink_to(tmp_path)

    assert "would overwrite" in refusal(tmp_path / name, inputs=[tmp_path / "gone", tmp_path / "in"]).message


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "link/a"), ("a", "a/b"), ("link/a/b/c", "a"), ("x/../a", "a")])
def test_targets_in_each_others_place(tmp_path: Path, paths: tuple[str, str]) -> None:
    """Two that are one file, or one file that would have to be a folder; also beside those that were checked before."""
    (tmp_path / "link").symlink_to(tmp_path)
    first, second = (tmp_path / each for each in paths)
    second = first if second == first else second

    for options in ({}, {"beside": [second]}):
        error = refusal(first, *([] if options else [second]), **options)
        assert "two files would be written to" in error.message or "both a file and a folder" in error.message


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("file", "is a file, expected a folder"),
        ("file/below", "cannot be created"),
        ("nowhere", "is a link to gone, which does not exist"),
        ("nowhere/below", "is a link to gone, which does not exist"),
        (f"{'x' * 300}/below", "File name too long"),
        (f"new/{'x' * 300}/below", "has 300 bytes, more than the 255"),
        ("a\0b", "is not a valid folder name"),
        ("\ud800", "is not a valid folder name"),
    ],
)
def test_folders_that_cannot_be(tmp_path: Path, folder: str, message: str) -> None:
    """One sentence, and nothing is made."""
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match=message):
        check_folder(tmp_path / folder, "choose another")

    assert message in refusal(tmp_path / folder / "a").message
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("code", "folder", "message"),
    [
        (errno.ENOSPC, "", "cannot be written to: No space left on device"),
        (errno.EROFS, "", "cannot be written to: Read-only file system"),
        (errno.EACCES, "new", "cannot be created: Permission denied"),
    ],
)
def test_a_disk_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, folder: str, message: str
) -> None:
    """It is asked before the work, with a file that nobody sees."""

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(code, os.strerror(code))

    def refuse(**_: Any) -> io.BytesIO:
        if code == errno.ENOSPC:  # an empty file has room on a full disk
            return Full()
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)

    assert message in refusal(tmp_path / folder / "a").message


def test_long_names(tmp_path: Path) -> None:
    """Bytes count, not letters; the longest that the disk takes is fine."""
    check(tmp_path / ("ä" * 125 + "x.png"))

    assert "has 256 bytes, more than the 255" in refusal(tmp_path / ("ä" * 126 + ".png")).message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """One that has to be made first comes with the command, to be typed as it is."""
    check_parent(tmp_path / "a")
    with pytest.raises(UsageError, match=r"a cannot be written: folder .*my maps does not exist") as caught:
        check_parent(tmp_path / "my maps" / "a")

    assert caught.value.hint == f"mkdir -p '{tmp_path}/my maps'"


@pytest.mark.parametrize("most", [-1, 0])
def test_a_disk_that_does_not_say_how_long_names_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """As some that are mounted over a network: names are fine."""
    monkeypatch.setattr(os, "pathconf", lambda *_: most)

    check(tmp_path / "new" / "a")


def test_stdout() -> None:
    """What other programs take for stdout would be a file of that name."""
    for path in (Path("-"), Path("-", "a")):
        assert "- is not accepted as a file" in refusal(path).message


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("./\0a~\n ä\udcff\ud800"), max_size=6))
def test_names_stay_within_their_folder(tmp_path: Path, name: str) -> None:
    """Of all names only those that really are one file in the folder pass."""
    try:
        found = within(tmp_path, name, "choose another")
    except UsageError:
        assert not is_plain(name)
        assert name in ("", ".", "..") or {*"/\0\ud800"} & {*name}
    else:
        assert os.fsencode(os.path.normpath(found)).rpartition(b"/")[::2] == (os.fsencode(tmp_path), os.fsencode(name))
