"""What commands that were killed left in the system's folder for temporary files, and what somebody else has there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from camoxpert_cli.errors import UsageError
from camoxpert_cli.temporary import temporary_folder
from tests.helpers.places import ROOT

MAKES = """
import sys
from camoxpert_cli.errors import UsageError
from camoxpert_cli.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "content").write_text("of a process")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def _make() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", MAKES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_folders_of_killed_processes(tmp_path: Path) -> None:
    """The next one removes them; not those of one that lives, of a link, or of anybody who chose such a name."""
    killed, left = _make()
    killed.kill()
    killed.communicate()
    living, used = _make()
    assert not left.exists()

    (tmp_path / "camox-results").mkdir()
    (tmp_path / "camox-results" / "mine").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".in-use").touch()
    (tmp_path / "camox-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "camox-linked").mkdir()
    (tmp_path / "camox-linked" / ".in-use").symlink_to(tmp_path / "elsewhere" / ".in-use")
    (tmp_path / "camox-file").touch()
    before = sorted(tmp_path.iterdir())
    with temporary_folder() as folder:
        assert folder.is_dir()
    assert sorted(tmp_path.iterdir()) == before
    assert (used / "content").read_text() == "of a process"
    assert (tmp_path / "camox-results" / "mine").exists()

    living.communicate("")
    assert not used.exists()


def test_folders_of_other_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are left alone, also by one who could."""
    (tmp_path / "camox-theirs").mkdir()
    (tmp_path / "camox-theirs" / ".in-use").touch()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with temporary_folder():
        pass
    assert (tmp_path / "camox-theirs").exists()


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be made, as on a full disk, there is a sentence."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="a temporary folder cannot be created") as caught, temporary_folder():
        raise AssertionError("not reached")
    assert "TMPDIR" in caught.value.hint
