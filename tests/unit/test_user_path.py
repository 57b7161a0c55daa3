from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_cli.user_path import user_path


def test_home_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only at the start, as in a shell; other paths stay as they are, whether they are there or not."""
    monkeypatch.setenv("HOME", str(tmp_path))

    assert user_path("~/data") == tmp_path / "data"
    assert user_path(Path("~")) == tmp_path
    assert user_path("data/~/x") == Path("data/~/x")
    assert user_path("$HOME/x") == Path("$HOME/x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a" * 256, "file name too long"),
        ("a/" * 2100, "file name too long"),
        ("one.jpg\n" * 40, "file name too long"),
        ("a\0b", "invalid file name"),
        ("a\ud800b", "invalid file name"),
        ("~nobody-is-called-so/x", "no home folder found for ~nobody-is-called-so"),
        ("LOOP/x", "too many levels of symbolic links"),
    ],
)
def test_what_no_path_can_be(tmp_path: Path, text: str, reason: str) -> None:
    """The reason in words, for every way in which the system refuses a path rather than finds nothing there."""
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(ValueError, match=f"^{reason}$"):
        user_path(text.replace("LOOP", str(tmp_path / "loop")))
