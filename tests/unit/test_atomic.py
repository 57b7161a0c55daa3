from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camoxpert_cli import atomic

OLD, NEW = b"old content", b"new content, of another length"


def device(path: Path) -> None:
    path.symlink_to(os.devnull)


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


@pytest.mark.parametrize(
    ("make", "message"), [(Path.mkdir, "Is a directory"), (os.mkfifo, "a pipe"), (device, "a device")]
)
def test_what_is_no_file_stays(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    """Nothing takes the place of a folder, a pipe or a device, also under the name of a link."""
    make(tmp_path / "there")
    before = os.lstat(tmp_path / "there")
    with pytest.raises(OSError, match=message), atomic.replacing(tmp_path / "there"):
        raise AssertionError("not reached")

    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert os.lstat(tmp_path / "there").st_ino == before.st_ino


def test_a_link_is_replaced(tmp_path: Path) -> None:
    """What it led to stays as it was: it may lie anywhere."""
    (tmp_path / "real").write_bytes(OLD)
    (tmp_path / "link").symlink_to("real")
    atomic.write_text(tmp_path / "link", "new")

    assert (tmp_path / "real").read_bytes() == OLD
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "new"


@given(st.integers(0o400, 0o777))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    """Whoever could read the old file can read the new one, and nobody else."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    path.chmod(mode)
    atomic.write_text(path, "new")

    assert stat.S_IMODE(path.stat().st_mode) == mode
    path.unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    """Where the system lets us."""
    (tmp_path / "file").write_bytes(OLD)
    os.chown(tmp_path / "file", 1234, 2345)
    (tmp_path / "file").chmod(0o640)
    atomic.write_text(tmp_path / "file", "new")
    found = (tmp_path / "file").stat()

    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o640)


def test_one_more_name_keeps_its_own_permissions(tmp_path: Path) -> None:
    """A second name for a file does not change the file."""
    for name, mode in (("file", 0o600), ("other", 0o644)):
        (tmp_path / name).write_bytes(OLD)
        (tmp_path / name).chmod(mode)
    with atomic.replacing(tmp_path / "other") as temporary:
        os.link(tmp_path / "file", temporary)

    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert (tmp_path / "other").samefile(tmp_path / "file")


def test_no_folder(tmp_path: Path) -> None:
    """Without a folder to write to the error is that of the system, and no folder appears."""
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "nowhere" / "file"):
        pass

    assert list(tmp_path.iterdir()) == []


def test_text_is_utf8(tmp_path: Path) -> None:
    """Text is UTF-8 with its line ends as they are, whatever the locale."""
    atomic.write_text(tmp_path / "file", "Größe: 3 µm\nзмея\n")

    assert (tmp_path / "file").read_bytes() == "Größe: 3 µm\nзмея\n".encode()


def test_text_that_is_none(tmp_path: Path) -> None:
    """Names of files may be any bytes: what is no text in them is escaped, and the file is UTF-8 all the same."""
    atomic.write_text(tmp_path / "file", b"\xff.jpg \xc3\xa4\n".decode(errors="surrogateescape"))

    assert (tmp_path / "file").read_text(encoding="utf-8") == "\\udcff.jpg ä\n"


@given(st.one_of(st.text("aä[*].\n\udcff", min_size=1, max_size=8), st.sampled_from(["x" * 255, "ä" * 127, "[" * 200])))
@settings(max_examples=50)
def test_any_name(name: str) -> None:
    """Names as long as they may be, with characters of patterns, and of no text: written, and swept up."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name if name not in (".", "..") else "x")
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(OLD)
            left = temporary.with_name(temporary.name + "0")
            left.write_bytes(OLD)
        atomic.sweep(path)

        assert path.read_bytes() == OLD
        assert [each.name for each in Path(folder).iterdir()] == [path.name]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    """Another process may be at work on the same file; one that is gone, or of another machine and old, is not."""
    with atomic.replacing(tmp_path / "file") as temporary:
        temporary.touch()
        machine = temporary.name.partition(".tmp")[2].partition("-")[0]
        gone = 999_999_999
        names = {number: f".file.tmp{machine}-{number}-0a" for number in (os.getppid(), gone)}
        elsewhere = [f".file.tmp{'0' * 8}-{gone}-{end}" for end in ("0a", "0b")]
        for name in (*names.values(), *elsewhere):
            (tmp_path / name).touch()
        os.utime(tmp_path / elsewhere[1], (0, 0))
        atomic.sweep(tmp_path / "file")
        assert {path.name for path in tmp_path.iterdir()} == {names[os.getppid()], elsewhere[0]}
        temporary.touch()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """No file that is not ours is written over, whatever it is called."""
    names = ("file.tmp", ".files.tmp", ".files.tmp0a", ".file.tmp", ".file.tmp-old", ".file.tmp.bak")
    for name in names:
        (tmp_path / name).write_bytes(OLD)
    atomic.write_text(tmp_path / "file", "new")
    atomic.sweep(tmp_path / "file")

    assert all((tmp_path / name).read_bytes() == OLD for name in names)


def test_what_cannot_be_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder like /tmp what another user's command left stays, and stops nobody; nor does a folder not there."""
    left = tmp_path / ".file.tmp0a"
    left.touch()
    (tmp_path / ".file.tmp0b").mkdir()

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        atomic.sweep(tmp_path / "file", tmp_path / "gone" / "file", left / "file")
    assert left.exists()
    atomic.sweep(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == [".file.tmp0b"]


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
