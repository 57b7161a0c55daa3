from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from camoxpert_cli import console
from camoxpert_cli.app import app


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    yield
    console.be_quiet(False)


@pytest.mark.parametrize("command", ["train", "resume", "status", "predict", "check-data", "benchmark", "doctor"])
def test_commands_that_take_long_can_be_quiet(command: str) -> None:
    """Every command that tells how it goes has the same flag to leave that out."""
    text = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())

    assert "--quiet Print only results, warnings and errors." in text


def test_one_command_is_quiet_and_the_next_is_not(tiny_data: Path) -> None:
    """The flag is that of one command: results stay, what was said on the way goes, and returns without the flag."""
    quiet, loud = (
        CliRunner().invoke(app, ["train", "--dataset-path", str(tiny_data), "--set", "model.backbone=none", *more])
        for more in (["--quiet"], [])
    )

    assert quiet.stderr.startswith("Error: ")
    assert loud.stderr.startswith("Data: ")
