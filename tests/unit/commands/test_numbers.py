"""Numbers that are none, or that no machine computes with, for every option that takes one."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from camoxpert_cli import api
from camoxpert_cli.app import app
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import MOST_COUNTED, SETTINGS
from camoxpert_cli.errors import ConfigError

LONG, ENDLESS = "9" * 400, "9" * 5000  # Python reads no number in the second one
NONE = [ENDLESS, f"-{LONG}", "1e999", "nan", "-1", "0x10", "٣x", "1,,"]
# What else a command needs to look at its options.
BESIDE: dict[str, list[str]] = {
    "eval": ["missing.pth", "--dataset-path", "missing"],
    "predict": ["missing.pth", "missing.jpg", "--out", "missing"],
    "export": ["missing.pth", "missing.onnx"],
    "benchmark": ["--device", "cpu"],
}
_SHARED = {"--img-size", "--batch-size", "--gpus", "--devices"}
_FLAGS = {each.flag: each for each in SETTINGS.values()}


def _options(command: str) -> list[str]:
    """Those that take a number, or a time, as the help says."""
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    words = {"N", "X", "TIME", "N,N"}
    return [each.opts[0] for each in parameters if words & set((each.metavar or "").split("|"))]


@pytest.mark.parametrize("text", [LONG, *NONE])
def test_settings(text: str) -> None:
    """Each that is no such number is told, and all at once; so many digits are a number for four of them alone."""
    options = _options("train")
    outcome = CliRunner().invoke(app, ["train", "--device", "cpu", *(f"{each}={text}" for each in options)])
    told = {line.removeprefix("Error: ").strip().partition(" is ")[0] for line in outcome.stderr.splitlines()}

    assert outcome.exit_code == 2
    unbounded = {flag for flag in options if _FLAGS[flag].type is int and _FLAGS[flag].high is None}
    unbounded |= {"--stage2-batch-size", "--save-every"}  # counts too, told once all others are right
    assert set(options) - told <= (unbounded if text == LONG else set())
    assert len(options) > 25


@pytest.mark.parametrize("flag", [each for each in _options("train") if each != "--save-every"])
def test_a_setting_of_too_many_digits(flag: str) -> None:
    """Alone, too: a whole number without a bound has one all the same. From Python it is a number already."""
    for value in (LONG, 10**400, 16**6000, -(16**6000), float("inf")):
        with pytest.raises(ConfigError, match="expected") as caught:
            api.train(None, **{"device": "cpu", "dataset_path": "missing", _FLAGS[flag].name: value})
        assert len(caught.value.message) < 1000
        assert "Exceeds the limit" not in caught.value.message


@pytest.mark.parametrize("key", [each.key for each in SETTINGS.values() if each.high == MOST_COUNTED])
def test_a_count_beyond_all_use(key: str) -> None:
    """Whatever has no bound of its own fits where numbers have an end: in a loader, in a time."""
    with pytest.raises(ConfigError, match=f"; the maximum is {MOST_COUNTED}"):
        resolve(None, {key: 10**12})


@pytest.mark.parametrize(
    ("command", "option"),
    # Of the settings that a command takes one is as good as all.
    [(name, each) for name in BESIDE for each in _options(name) if each not in _FLAGS.keys() - _SHARED],
)
def test_options_of_other_commands(command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a sentence, whatever it is, and nothing has begun."""
    monkeypatch.chdir(tmp_path)
    for text in [LONG, *NONE]:
        outcome = CliRunner().invoke(app, [command, *BESIDE[command], f"{option}={text}"])
        assert outcome.exit_code == 2, (text[:9], outcome.output)
        assert "Error: " in outcome.stderr
    assert list(tmp_path.iterdir()) == []
