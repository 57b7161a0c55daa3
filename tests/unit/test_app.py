"""The error boundary and what stands around the commands."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import camoxpert_cli
from camoxpert_cli import errors
from camoxpert_cli.app import app


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
