"""Whether a folder is locked, as the system's list of locks says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from camoxpert_cli.run_folder import RunFolder
from camoxpert_cli.status.in_use import is_in_use

needs_locks = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists its locks")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def system(tmp_path: Path, *lines: str) -> Path:
    """A /proc with these locks."""
    (tmp_path / "proc").mkdir(exist_ok=True)
    (tmp_path / "proc" / "locks").write_text("".join(f"{number}: {line}\n" for number, line in enumerate(lines, 1)))
    return tmp_path / "proc"


def lock_on(folder: Path, kind: str = "FLOCK", device: int | None = None) -> str:
    status = folder.stat()
    device = status.st_dev if device is None else device
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{status.st_ino}"
    return f"{kind}  ADVISORY  WRITE 4711 {place} 0 EOF"


@needs_locks
def test_a_run(folder: Path) -> None:
    """A folder is in use while a run has it, alone or with its launcher, and looking does not take it away."""
    before = is_in_use(folder)
    with RunFolder(folder).locked():
        alone = is_in_use(folder)
        with pytest.raises(Exception, match="another process is using"), RunFolder(folder).locked():
            pass
    with RunFolder(folder).locked(shared=True):
        together = is_in_use(folder)

    assert (before, alone, together, is_in_use(folder)) == (False, True, True, False)


def test_other_locks(folder: Path, tmp_path: Path) -> None:
    """A lock of another kind, on another folder or disk, or one that is waited for, is not the run's."""
    others = [
        lock_on(tmp_path),
        lock_on(folder, "POSIX"),
        lock_on(folder, "-> FLOCK"),
        lock_on(folder, device=os.makedev(250, 7)),
        "FLOCK",
        "",
    ]

    assert is_in_use(folder, system(tmp_path, *others)) is False
    assert is_in_use(folder, system(tmp_path, *others, lock_on(folder))) is True


def test_numbers_of_another_file_system(folder: Path, tmp_path: Path) -> None:
    """Where the list has other numbers, as in containers, the process with the lock has the folder open."""
    proc = system(tmp_path, lock_on(folder, device=os.makedev(250, 7)))
    (proc / "4711" / "fd").mkdir(parents=True)
    (proc / "4711" / "fd" / "3").symlink_to(tmp_path)
    (proc / "4711" / "fd" / "4").symlink_to("gone")
    other = is_in_use(folder, proc)
    (proc / "4711" / "fd" / "5").symlink_to(folder)

    assert (other, is_in_use(folder, proc)) == (False, True)


def test_unknown(folder: Path, tmp_path: Path) -> None:
    """A system that has no such list, and a folder that is gone, say nothing."""
    assert is_in_use(folder, tmp_path) is None
    assert is_in_use(tmp_path / "gone", system(tmp_path)) is None
