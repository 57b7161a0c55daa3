"""Paths that cannot be, in every argument and option of every command that takes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from camoxpert_cli import load_model, predict
from camoxpert_cli.app import app
from camoxpert_cli.errors import CamoxError
from tests.helpers.command_lines import commands

GROUP = typer.main.get_command(app)
WORDS = set("DIR FILE CHECKPOINT PATH IN OUT LIST RUN".split())
LINES = [
    (name, parameter.name)
    for name, command in commands()
    if name and not hasattr(command, "commands")
    for parameter in command.params
    if WORDS & set((parameter.metavar or "").split("|"))
]
IMPOSSIBLE = ("a" * 300, "a/" * 2100, "~nobody-is-called-so/x", "loop", "loop/x")


def test_there_are_such_commands() -> None:
    """Of these among others."""
    assert {("predict", "paths"), ("predict", "out"), ("train", "checkpoint_dir"), ("resume", "run")} < set(LINES)
    assert {("train", "cache"), ("export", "target"), ("check-data", "write_clean"), ("eval", "dataset_path")} < set(
        LINES
    )


@pytest.mark.parametrize(("name", "wanted"), LINES)
def test_a_path_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, wanted: str
) -> None:
    """One sentence that is short, whatever was typed, and an exit code of ours; nothing is made."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    command = dict(commands())[name]
    for path in IMPOSSIBLE:
        words = name.split()
        for parameter in command.params:
            value = path if parameter.name == wanted else "there"
            if parameter.param_type_name == "option" and (parameter.required or parameter.name == wanted):
                words += [parameter.opts[0], value]
        words += [
            path if parameter.name == wanted else "there"
            for parameter in command.params
            if parameter.param_type_name == "argument" and (parameter.required or parameter.name == wanted)
        ]
        with pytest.raises(SystemExit) as caught:
            GROUP.main(args=words, prog_name="camox")
        said = capsys.readouterr().err

        assert 1 < int(str(caught.value.code)) < 7
        assert said.startswith("Error: ")
        assert len(said) < 800
    assert [each.name for each in tmp_path.iterdir()] == ["loop"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["predict", "a.pth", "a.png", "--out", ""], "--out"),
        (["eval", ""], "an argument"),
        (["train", "--preset="], "--preset"),
    ],
)
def test_an_empty_argument(capsys: pytest.CaptureFixture[str], words: list[str], name: str) -> None:
    """As a path it would stand for the current folder, and is a shell's variable that was never set."""
    with pytest.raises(SystemExit) as caught:
        GROUP.main(args=words, prog_name="camox")

    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"Error: {name} is empty\nTry: ")


@pytest.mark.parametrize("call", [load_model, lambda path: predict(path, "a.jpg"), lambda path: predict("a.pth", path)])
def test_from_python(call: Any) -> None:
    """As on the command line; a path in Python may even hold a zero byte."""
    for path in ("a" * 300, "a\0b", "~nobody-is-called-so/x"):
        with pytest.raises(CamoxError, match="is not a valid path"):
            call(path)


def test_home_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out=~/predictions` reaches a command as it is typed: no shell looks there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "results.json").touch()

    outcome = CliRunner().invoke(app, ["eval", "--predictions", "x", "--masks", "x", "--out=~/predictions"])

    assert f"{tmp_path / 'predictions' / 'results.json'} already exists" in " ".join(outcome.stderr.split())
