"""The error boundary and what stands around the commands."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import camoxpert_cli
from camoxpert_cli import console, errors
from camoxpert_cli.app import app, main


def all_errors() -> list[type[errors.CamoxError]]:
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.CamoxError)]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_becomes_a_sentence_and_its_exit_code(
    kind: type[errors.CamoxError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kind of user error ends a command: message and hint on stderr, its own exit code, no traceback."""

    def fail(*_: object) -> None:
        raise kind("it broke", "mend it")

    monkeypatch.setattr("camoxpert_cli.config.resolve.resolve", fail)
    outcome = CliRunner().invoke(app, ["train"])

    assert outcome.exit_code == kind.exit_code
    assert outcome.stderr == "Error: it broke\nTry:   mend it\n"
    assert outcome.stdout == ""


def test_exit_codes_are_those_the_documentation_promises() -> None:
    """2 usage, 3 data, 4 checkpoint, 5 device, 6 training, 75 another process lost, 130 Ctrl-C."""
    codes = {kind.__name__: kind.exit_code for kind in all_errors()}

    assert codes == {
        "CamoxError": 1,
        "UsageError": 2,
        "ConfigError": 2,
        "DataError": 3,
        "CheckpointError": 4,
        "DeviceError": 5,
        "TrainingError": 6,
        "PeerLostError": 75,
        "Interrupted": 130,
    }


def test_a_fault_of_the_gpu_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever command meets it, as before training on a card that torch has no code for."""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nFor debugging")

    monkeypatch.setattr("camoxpert_cli.config.resolve.resolve", fail)
    outcome = CliRunner().invoke(app, ["train"])

    assert outcome.exit_code == 5
    assert outcome.stderr == (
        "Error: the GPU cannot be used: CUDA error: no kernel image is available for execution on the device\n"
        "Try:   camox doctor\n"
    )


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.EPIPE, 141, ""),
        (
            errno.ENOSPC,
            2,
            "Error: results cannot be written to stdout: No space left on device\nTry:   free some space",
        ),
    ],
)
@pytest.mark.parametrize("command", [["presets"], ["--help"], ["presets", "-h"], ["train", "--help"], ["--version"]])
def test_results_that_nobody_gets(
    monkeypatch: pytest.MonkeyPatch, command: list[str], number: int, code: int, said: str
) -> None:
    """A reader that has had enough, as of `| head -1`, is no news; a full disk is. Help is a result too."""

    def lost(text: str) -> None:
        raise console.NotTold(number, os.strerror(number))

    monkeypatch.setattr(console, "result", lost)
    outcome = CliRunner().invoke(app, command)

    assert outcome.exit_code == code
    assert outcome.stderr.startswith(said)
    assert bool(outcome.stderr) == bool(said)


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--{}"],
        ["{}"],
        ["eval", "--batch-size", "{}"],
        ["predict", "--device", "{}", "x", "y", "--out", "z"],
        ["presets", "{}"],
        ["presets", "show", "{}"],
        ["train", "--gpus", "{}"],
        ["train", "--set", "{}"],
        ["train", "--preset", "{}"],
    ],
)
@pytest.mark.parametrize("text", ["\x1b[2J\x9b\u202ex", "9" * 5000])
def test_what_was_typed_is_shown_as_text(command: list[str], text: str) -> None:
    """Whoever tells a mistake in what was typed, also typer: no terminal obeys it, and it is a sentence."""
    outcome = CliRunner().invoke(app, [each.format(text) for each in command])

    assert outcome.exit_code == 2, outcome.output
    assert not set(outcome.output) & set("\x1b\x9b\u202e")
    assert len(outcome.stderr.splitlines()) <= 5


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "secret.yaml"), "secret.yaml: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), "runs/a: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_what_the_system_refuses(monkeypatch: pytest.MonkeyPatch, error: OSError, said: str) -> None:
    """Wherever it does, the user can help it: a sentence with the file's name, where there is one."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("camoxpert_cli.config.resolve.resolve", fail)
    outcome = CliRunner().invoke(app, ["train"])

    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(f"Error: {said}\nTry:   ")


def test_a_current_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library would end the process, and blame one of its own files."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "Error: the current folder is not accessible: No such file or directory\nTry:   cd to an existing folder\n"
    )


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is not turned into a sentence that hides it."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("camoxpert_cli.config.resolve.resolve", fail)
    outcome = CliRunner().invoke(app, ["train"])

    assert isinstance(outcome.exception, ZeroDivisionError)


def test_the_face_of_the_package_is_honest() -> None:
    """Every name in `__all__` is there, and a wrong one is an AttributeError."""
    assert all(getattr(camoxpert_cli, name) for name in camoxpert_cli.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode_model'"):
        _ = camoxpert_cli.lode_model
