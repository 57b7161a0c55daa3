from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the user's presets, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    folder = tmp_path / "settings" / "camox" / "presets"
    folder.mkdir(parents=True)
    return folder
