"""Variables that a launcher sets, and that somebody left in the environment of a command that nobody launched."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.errors import UsageError
from camoxpert_cli.parallel.worker import LAUNCHER_VARIABLES, ranks

WHOLE = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def _set(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_what_torchrun_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, WHOLE)

    assert ranks() == (1, 2, 0, 1)


TRAIN = ["train", "--preset", "quickstart", "--device", "cpu"]
NUMBERS = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"]


@pytest.mark.parametrize("name", [*NUMBERS, "MASTER_ADDR"])
@pytest.mark.parametrize("command", [TRAIN, ["eval", "x", "--dataset-path", "y"]])
def test_one_that_is_missing_or_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, command: list[str]
) -> None:
    """It is named, with its value, and so is the one that makes the command one of several; nothing is begun."""
    monkeypatch.chdir(tmp_path)
    for value in [None, *(["", "abc", "-1", "2.0", "9" * 30, "9" * 5000, "٣"] if name in NUMBERS else [])]:
        _set(monkeypatch, WHOLE)
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
        outcome = CliRunner().invoke(app, command)

        assert outcome.exit_code == 2, outcome.output
        assert outcome.stderr.startswith("Error: ")
        assert f"{name} is " in outcome.stderr or f" {name} expected, but not set" in outcome.stderr
        assert "Try:   unset TORCHELASTIC_RUN_ID" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK"])
def test_a_rank_beyond_the_last(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _set(monkeypatch, {**WHOLE, name: "2"})
    with pytest.raises(UsageError, match=f"^{name} is 2, expected less than "):
        ranks()


def test_a_job_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable of camox itself is named too."""
    _set(monkeypatch, {**WHOLE, "CAMOX_JOB": str(tmp_path / "gone")})
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    outcome = CliRunner().invoke(app, TRAIN)

    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(f"Error: CAMOX_JOB is not a job file: '{tmp_path}/gone'")
    assert "Try:   unset CAMOX_JOB" in outcome.stderr
