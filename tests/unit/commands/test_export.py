"""`camox export`: what it prints and exits with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from tests.helpers.checkpoints import content_of, write_content
from tests.helpers.networks import small_network


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_content(tmp_path / "last.pth", content_of(small_network("test_resnet", 2)))
    return tmp_path / "last.pth"


def test_safetensors(checkpoint: Path, tmp_path: Path) -> None:
    """Two lines on stdout say which network it is, which of its weights, at which size, and where they are."""
    ema = run(checkpoint, tmp_path / "out.safetensors", "--img-size", "96")
    model = run(checkpoint, tmp_path / "model.safetensors", "--img-size", "96", "--weights", "model")

    assert (ema.exit_code, model.exit_code) == (0, 0), ema.output
    first, last = ema.stdout.splitlines()
    assert first == f"{checkpoint}: test_resnet with 2 experts, the average of the weights, 96 pixels"
    size = (tmp_path / "out.safetensors").stat().st_size / 2**20
    assert last == f"Written: {tmp_path / 'out.safetensors'}, {size:.1f} MiB"
    assert "the weights themselves" in model.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["last.pth", "out.onxx", "--img-size", "96"], 2, "does not say which format is meant"),
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
