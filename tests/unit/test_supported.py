"""Where camox does not run it says so."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

from camoxpert_cli import supported


def test_a_system_without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows there is one sentence, before whatever is missing there is imported."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="Error: camox requires Linux or macOS"):
        importlib.reload(supported)
