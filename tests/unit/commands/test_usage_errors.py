"""Errors in a command line: the value, what was expected, and what to type, in the form of all other errors."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ("predict a b --out c --threshold half", "--threshold is 'half', expected a number", "predict --help"),
        ("predict a b --out c --threshold=half", "--threshold is 'half', expected a number", "predict --help"),
        ("predict a b --out c --img-size big", "--img-size is 'big', expected an integer from 64 to 4096", None),
        ("predict a b --out c --img-size 33", "--img-size is '33', expected an integer from 64 to 4096", None),
        ("predict a b --out c --device tpu", "--device is 'tpu', expected one of auto, cuda, cpu", None),
        ("convert-ckpt a b --to original", "--to is 'original', expected one of same, camoxpert", None),
        ("predict a", "PATH is missing", "predict CHECKPOINT PATH... --out DIR"),
        ("predict a b", "--out is missing", "predict CHECKPOINT PATH... --out DIR"),
        ("resume", "RUN is missing", "resume RUN"),
        ("train DATA", "unexpected argument 'DATA'", "train --dataset-path DATA"),
        ("guide data kaggle", "unexpected argument 'kaggle'", "guide --help"),
        ("train --genarated-images 3", "unknown option '--genarated-images'; did you mean --generated-images", None),
        ("eval --maps x", "unknown option '--maps'", "eval --help"),
        ("evil x", "unknown command 'evil'; did you mean eval?", "--help"),
    ],
)
def test_mistakes(arguments: str, error: str, hint: str | None) -> None:
    """Two lines on stderr, nothing on stdout, exit code 2."""
    outcome = CliRunner().invoke(app, arguments.split(), prog_name="camox")
    first, second, *more = outcome.stderr.splitlines()

    assert (outcome.exit_code, outcome.stdout, more) == (2, "", [])
    assert first.startswith(f"Error: {error}")
    assert second.startswith("Try:   camox ")
    assert hint is None or second == f"Try:   camox {hint}"


@pytest.mark.parametrize(("arguments", "hint"), [("train --preset", "--preset NAME"), ("eval --set", "--set NAME")])
def test_a_value_that_is_missing(arguments: str, hint: str) -> None:
    """The hint shows what the value stands for."""
    outcome = CliRunner().invoke(app, arguments.split(), prog_name="camox")

    assert outcome.stderr == f"Error: {arguments.split()[1]} needs a value\nTry:   {hint}\n"


def test_what_was_typed_is_shown_short_and_printable() -> None:
    """Control characters and long values do not reach the terminal."""
    outcome = CliRunner().invoke(app, ["train", "\x1b[31m" + 5000 * "x"], prog_name="camox")

    assert outcome.exit_code == 2
    assert "\x1b" not in outcome.stderr
    assert len(outcome.stderr) < 400
