"""`--unfinished-exit-code`: which ends have it, and in which processes."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.outcome import Outcome
from camoxpert_cli.engine.stopping import Stop
from camoxpert_cli.errors import CamoxError, Interrupted, PeerLostError, TrainingError
from camoxpert_cli.launch import start
from camoxpert_cli.launch.unfinished import code_of, code_typed, interrupted_with, warn_of_torchrun
from camoxpert_cli.run_folder import RunFolder
from camoxpert_cli.signals import Asked
from tests.unit.launch.test_start import Attempts, failed, two_processes

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
KEY = "run.unfinished_exit_code"
FLAG = "--unfinished-exit-code"


def asked(code: int | None) -> Config:
    return resolve(None, {} if code is None else {KEY: code}).config


def stopped(tmp_path: Path, code: int | None, stop: Stop | None) -> Outcome:
    """The outcome of a run in which `stop` is why it ended early."""
    return Outcome(RunFolder(tmp_path), asked(code), 0, 0, 0.0, False, results=None, stop=stop)


@pytest.mark.parametrize("code", [0, 85, 255])
def test_a_signal_ends_with_the_code(code: int) -> None:
    """Whether the run was saved, was stopped immediately, or had not begun: what is said stays as it is."""
    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM in epoch 3\n") as saved, interrupted_with(code):
        raise Interrupted("stopped by SIGTERM in epoch 3", "camox resume x", 143)
    with pytest.raises(Interrupted, match=r"^stopped by SIGUSR1$") as early, interrupted_with(code):
        raise Asked(signal.SIGUSR1)
    with pytest.raises(Interrupted, match=r"^stopped by Ctrl-C$") as pressed, interrupted_with(code):
        raise KeyboardInterrupt

    assert [each.value.exit_code for each in (saved, early, pressed)] == [code] * 3
    assert saved.value.hint == "camox resume x"


@pytest.mark.parametrize("error", [TrainingError("nan"), PeerLostError("lost"), ValueError("a bug")])
def test_errors_keep_their_code(error: Exception) -> None:
    """A run that failed is not one to start again."""
    with pytest.raises(type(error)) as caught, interrupted_with(85):
        raise error

    assert caught.value is error
    assert getattr(error, "exit_code", None) in (6, 75, None)


def test_without_a_code() -> None:
    """Signals end as they do anyway: 128 + the signal's number."""
    with pytest.raises(Interrupted) as caught, interrupted_with(None):
        raise Interrupted("stopped by SIGTERM", exit_code=143)
    with pytest.raises(Asked), interrupted_with(None):
        raise Asked(signal.SIGTERM)

    assert caught.value.exit_code == 143


def test_from_settings_and_flags() -> None:
    """An invalid flag is none yet: the configuration refuses it, with all other mistakes."""
    assert [code_of(asked(code)) for code in (None, 0, 85)] == [None, 0, 85]
    assert [code_typed({KEY: text}) for text in ("0", "85", "256", "many", "-1")] == [0, 85, None, None, None]
    assert code_typed({"train.epochs": "3"}) is None


def test_under_torchrun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It fails whatever the code, so each process keeps its own, and the first says what to run afterwards."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    warn_of_torchrun(asked(None), Path("runs/first"))
    warn_of_torchrun(asked(85), Path("runs/a b"))
    said = " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("RANK", "1")
    warn_of_torchrun(asked(85), Path("runs/first"))

    assert said.startswith("Warning: torchrun does not pass on exit codes, so --unfinished-exit-code 85 has no effect")
    assert said.endswith(f"run this after torchrun: camox status 'runs/a b' {FLAG} 85")
    assert said.count("Warning") == 1
    assert capsys.readouterr().err == ""
    assert (code_of(asked(85)), code_typed({KEY: "85"})) == (None, None)


def test_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of several processes it alone has the code; a signal causes no restart, and other ends keep theirs."""
    resolved = two_processes(tmp_path, 3)
    config = replace(resolved.config, run=replace(resolved.config.run, unfinished_exit_code=85))
    codes = []
    for code in (143, 138, 6, 75):
        attempts = Attempts(monkeypatch, *[failed(code, began=False)] * (4 if code == 75 else 1))
        with pytest.raises(CamoxError) as caught:
            start.start(replace(resolved, config=config))
        assert attempts.ends == []
        codes.append(caught.value.exit_code)

    assert codes == [85, 85, 6, 75]
    assert "torchrun" not in capsys.readouterr().err


@pytest.mark.parametrize(("code", "exit_code"), [(None, 0), (0, 0), (85, 85)])
def test_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, exit_code: int) -> None:
    """Both commands print what they do anyway, as JSON too, and exit with the code; a complete run does with 0."""
    cut, whole = stopped(tmp_path, code, Stop("out of time", 0)), stopped(tmp_path, code, None)
    for command, place in (("train", "start.start"), ("resume RUN", "resume.resume")):
        monkeypatch.setattr(f"camoxpert_cli.launch.{place}", lambda *_: cut)
        early = CliRunner().invoke(app, [*command.split(), "--json"])
        monkeypatch.setattr(f"camoxpert_cli.launch.{place}", lambda *_: whole)
        complete = CliRunner().invoke(app, command.split())
        assert (early.exit_code, complete.exit_code) == (exit_code, 0)
        assert '"reason": "out of time"' in early.stdout


def test_a_signal_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while modules are imported and a checkpoint is read, which `camox resume` does before it has settings."""

    def interrupted(*_: Any) -> None:
        raise Asked(signal.SIGTERM)

    monkeypatch.setattr("camoxpert_cli.launch.start.start", interrupted)
    monkeypatch.setattr("camoxpert_cli.launch.resume.resume", interrupted)
    for command in ("train", "resume RUN"):
        usual = CliRunner().invoke(app, command.split())
        unfinished = CliRunner().invoke(app, [*command.split(), FLAG, "85"])
        assert (usual.exit_code, unfinished.exit_code) == (143, 85)
        assert unfinished.stderr == usual.stderr == "Error: stopped by SIGTERM\n"


@pytest.mark.parametrize("text", ["256", "-1", "many", "8.5"])
def test_what_is_no_exit_code(text: str) -> None:
    """It is refused with what was expected."""
    refused = CliRunner().invoke(app, ["train", FLAG, text])

    assert refused.exit_code == 2
    assert f"{FLAG} is '{text}', expected an integer from 0 to 255" in " ".join(refused.stderr.split())
