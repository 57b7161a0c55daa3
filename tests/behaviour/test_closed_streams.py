"""Commands that are started without the streams that every command has."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

SPEAKS = """
import os, sys
from camoxpert_cli import console
console.prepare_streams()
with open("file", "w") as file:
    os.write(1, b"a library speaks")
    os.write(2, b"a library warns")
    console.say("said")
    console.result("result")
    file.write(str(file.fileno() > 2))
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    """No file takes their place, into which a library would speak; what is said goes nowhere, and is no error."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = f"exec {shlex.quote(sys.executable)} -S -c {shlex.quote(SPEAKS)} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "True"
    assert ("said" in done.stderr) == ("2>" not in closed)
    assert ("result" in done.stdout) == (closed == "2>&-")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("full", [">", "2>"])
def test_a_log_that_is_full_at_the_end(monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    """What was left to be written does not change the exit code."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from camoxpert_cli import console; console.prepare_streams(); "
        "sys.stdout.write('left'); console.say('said')"
    )
    command = f"exec {shlex.quote(sys.executable)} -S -c {shlex.quote(program)} {full}/dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "" if full == "2>" else "said\n")
