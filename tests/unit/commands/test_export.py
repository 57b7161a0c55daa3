"""`camox export`: what it prints and exits with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from tests.helpers.checkpoints import Stub, content_of, write_content


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_content(tmp_path / "last.pth", content_of(Stub()))
    return tmp_path / "last.pth"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["last.pth", "out.onxx", "--img-size", "96"], 2, "has no known export format"),
        (["last.pth", "out.safetensors"], 4, "does not say at which size"),
        (["last.pth", "out.safetensors", "--img-size", "32"], 2, "--img-size"),
        (["absent.pth", "out.safetensors"], 4, "there is no file"),
    ],
)
def test_mistakes(
    checkpoint: Path, tmp_path: Path, arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake ends with a sentence on stderr and its exit code, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    outcome = run(*arguments)

    assert (outcome.exit_code, message in outcome.stderr) == (code, True), outcome.stderr
    assert outcome.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
