"""`camox presets`: what it lists, shows and checks."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.config.presets import preset_names, read_preset
from camoxpert_cli.config.resolve import Resolved, resolve
from camoxpert_cli.config.schema import SETTINGS


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"})


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the user's presets, with one that extends a recipe and one that is broken."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "camox" / "presets"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("summary: Cats\nhardware: my desk\nextends: baseline\ntrain:\n  seed: 7\n")
    (folder / "odd.yaml").write_text("train:\n  lr: fast\n  epoch: 3\n")
    return folder


def test_list() -> None:
    """Every preset has a line of what it is for and one of its hardware; alone, `presets` is the same."""
    outcome = run("presets", "list")

    assert outcome.exit_code == 0, outcome.output
    lines = outcome.stdout.splitlines()
    assert [line.split()[0] for line in lines[::2]] == preset_names()
    for name, first, second in zip(preset_names(), lines[::2], lines[1::2], strict=True):
        assert first.endswith(f"  {read_preset(name).summary}")
        assert second.strip() == f"on {read_preset(name).hardware}"
    assert run("presets").stdout == outcome.stdout
    assert run("presets", "--json").stdout == run("presets", "list", "--json").stdout


def test_list_with_the_users_own(own: Path) -> None:
    """The user's stand below, under their folder; a broken one with all that is wrong with it."""
    outcome = run("presets")

    assert outcome.exit_code == 0
    assert outcome.stdout.split("\n\n")[1].splitlines() == [
        f"Your own, in {own}:",
        "mine              Cats",
        "                  on my desk",
        "odd               invalid:",
        f"                  {own / 'odd.yaml'}: unknown setting train.epoch (given '3'); did you mean train.epochs?",
        f"                  {own / 'odd.yaml'}: train.lr is 'fast', expected a number of at least 0",
    ]


def test_list_as_json(own: Path) -> None:
    """The same for a script."""
    entries = json.loads(run("presets", "list", "--json").stdout)

    assert [entry["name"] for entry in entries] == [*preset_names(), "mine", "odd"]
    assert entries[-2] == {
        "name": "mine",
        "summary": "Cats",
        "hardware": "my desk",
        "path": str(own / "mine.yaml"),
        "built_in": False,
        "problem": "",
    }
    assert "train.lr is 'fast'" in entries[-1]["problem"]


def test_show_can_be_saved(tmp_path: Path) -> None:
    """What is printed is a preset of its own."""
    copy = tmp_path / "copy.yaml"
    copy.write_text(run("presets", "show", "kaggle-2xT4-fast").stdout)

    assert resolve(str(copy), {}).config == resolve("kaggle-2xT4-fast", {}).config


def test_show_explained(own: Path) -> None:
    """Each setting has a line: value and origin."""
    lines = run("presets", "show", "mine", "--explain").stdout.splitlines()
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}

    assert list(rows) == list(SETTINGS)
    assert rows["train.seed"] == f"7 {own / 'mine.yaml'}"
    assert rows["train.batch_size"] == "8 preset baseline (inherited)"
    assert rows["train.epochs"] == "140 preset kaggle-2xT4 (inherited)"
    assert rows["train.ema_decay"] == "0.999 default"


def test_show_as_json() -> None:
    """With --json, the settings with their origins."""
    content = json.loads(run("presets", "show", "baseline", "--json").stdout)

    assert content["extends"] == ["kaggle-1xT4", "kaggle-2xT4"]
    assert content["settings"]["run.gpus"] == {"value": 1, "origin": "preset kaggle-1xT4"}


def test_check(own: Path) -> None:
    """A preset in order ends with 0 and what it amounts to; another with 2 and every mistake on stderr."""
    good, bad = run("presets", "check", str(own / "mine.yaml")), run("presets", "check", "odd")

    assert good.exit_code == 0
    assert good.stdout.startswith(f"{own / 'mine.yaml'} is valid; it extends preset baseline, which extends ")
    assert bad.exit_code == 2
    assert bad.stdout == ""
    assert "train.lr is 'fast'" in bad.stderr
    assert "did you mean train.epochs?" in bad.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("presets show kagle-2xT4", "did you mean kaggle-2xT4?"),
        ("presets check none.yaml", "preset file none.yaml not found"),
        ("presets shwo baseline", "unknown command 'shwo'; did you mean show?"),
        ("presets show", "Error: NAME is missing\nTry:   camox presets show NAME\n"),
    ],
)
def test_a_slip_of_the_fingers(arguments: str, expected: str) -> None:
    """Wrong words end with 2 and one sentence."""
    outcome = run(*arguments.split())

    assert outcome.exit_code == 2
    assert expected in outcome.stderr
    assert "Traceback" not in outcome.output


def test_hints_lead_on(own: Path) -> None:
    """A name that is none is answered by the list, a wrong setting in a file by the settings as files name them."""
    (own / "bad.yaml").write_text("train:\n  epoch: 3\n")

    assert "Try:   camox presets\n" in run(*"presets show nix".split()).stderr
    assert "Try:   camox presets show baseline --explain\n" in run("presets", "check", str(own / "bad.yaml")).stderr
    assert "Try:   camox train --help\n" in run(*"train --preset quickstart --epochs 0".split()).stderr


def test_hints_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file next to the user that was meant is named, and so are the line that is no YAML and permissions."""
    monkeypatch.chdir(tmp_path)
    Path("nearby.yaml").write_text("train: {lr: 1e-4}\n")
    Path("notes.txt").write_text("train: {lr: 1e-4}\n")
    Path("tab.yaml").write_text("train:\n\tlr: 1e-4\n")
    Path("open.yaml").write_text("train: {lr: 1e-4\n")

    assert "; did you mean nearby.yaml?" in run("presets", "show", "nearby").stderr
    assert run("presets", "check", "notes.txt").stderr == (
        "Error: the name of a preset file must end in .yaml: notes.txt\n"
        "Try:   rename it, for example to notes.txt.yaml\n"
    )
    tab, unfinished = tmp_path.resolve() / "tab.yaml", tmp_path.resolve() / "open.yaml"
    told = run("presets", "check", "tab.yaml").stderr
    assert f"Error: {tab}:2 is not valid YAML: " in told.replace("\n", " ")
    assert told.endswith(f"Try:   indent line 2 with spaces instead of tabs, then: camox presets check {tab}\n")
    told = run("presets", "check", "open.yaml").stderr
    assert told.endswith(f"Try:   correct line 2, then: camox presets check {unfinished}\n")

    def refused(*_: object) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("camoxpert_cli.config.presets.read_regular", refused)
    told = run("train", "--preset", "nearby.yaml", "--dataset-path", "D").stderr
    assert told.endswith(f"Try:   check its permissions: ls -l {tmp_path.resolve() / 'nearby.yaml'}\n")


@pytest.mark.parametrize("command", ["presets", "presets list", "presets show", "presets check"])
def test_help_has_examples(command: str) -> None:
    """Help is plain text within 80 columns, and ends in commands to copy."""
    text = run(*command.split(), "--help").stdout

    assert f"  camox {command}" in text
    assert max(map(len, text.splitlines())) <= 80


def test_train_takes_the_users_own_by_name(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--preset mine` reaches the engine with what the file says."""
    seen: list[Resolved] = []
    monkeypatch.setattr("camoxpert_cli.launch.start.start", lambda resolved, *_, **__: seen.append(resolved))
    monkeypatch.setattr("camoxpert_cli.commands.training_outcome.finish", lambda *_, **__: None)
    outcome = run("train", "--preset", "mine", "--dataset-path", "D")

    assert outcome.exit_code == 0, outcome.output
    assert (seen[0].preset, seen[0].config.train.seed, seen[0].config.train.batch_size) == ("mine", 7, 8)


@pytest.mark.parametrize("command", ["benchmark", "doctor"])
def test_other_commands_know_the_users_own(own: Path, command: str) -> None:
    """They read the same presets: what is wrong in one is told, not that there is none."""
    outcome = run(command, "--preset", "odd")

    assert outcome.exit_code == 2
    assert f"{own / 'odd.yaml'}: train.lr is 'fast'" in outcome.stderr
