"""Signals that arrive while a command is starting."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from camoxpert_cli import signals

# As numpy has it: whatever happens in a part of it is swallowed, and the package then lacks that part.
PACKAGE = """
import os, signal
survived = False
try:
    os.kill(os.getpid(), signal.SIGTERM)
    survived = True
except BaseException:
    pass
"""


@pytest.fixture
def interrupting() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signals.interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("interrupting")
def test_in_the_middle_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import is completed, and the signal takes effect right after it."""
    monkeypatch.setattr(signals, "_asked_at", -signals.ONE_PRESS)
    (tmp_path / "package_that_is_slow.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("package_that_is_slow")
    with pytest.raises(signals.Asked) as caught:
        time.sleep(60)
    del sys.modules["package_that_is_slow"]

    assert module.survived
    assert caught.value.number == signal.SIGTERM


@pytest.mark.usefixtures("interrupting")
def test_at_any_other_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes effect at once."""
    monkeypatch.setattr(signals, "_asked_at", -signals.ONE_PRESS)
    with pytest.raises(signals.Asked):
        os.kill(os.getpid(), signal.SIGTERM)
