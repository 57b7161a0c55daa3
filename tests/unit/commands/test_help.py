"""The help of all commands reads as if one person had written it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from tests.helpers.command_lines import commands

# Flags that take something else on other commands, and how many wordings they have for that.
WORDINGS = {
    "--batch-size": 3,  # of training, of a resumed run, of benchmarks and scoring
    "--checkpoint-dir": 2,  # a new run, a resumed one
    "--continue": 2,  # a run; predictions and scores
    "--dry-run": 2,  # convert-ckpt also compares
    "--epochs": 2,  # to train, to compute the time of
    "--gpus": 3,  # of training, of a resumed run; benchmark compares numbers
    "--images": 4,  # for training, for checking, for scoring, of labels
    "--img-size": 2,  # of training, of the network later
    "--masks": 2,
    "--out": 4,  # predictions, scores, tables, imported data
    "--overwrite": 5,  # what is replaced
    "--precision": 2,  # of training, of scoring
    "--preset": 3,  # to train with, to measure, to ask about
    "--pretrained": 2,  # benchmark downloads no weights
    "--stage1-epochs": 2,  # as --epochs
    "--stage2-batch-size": 3,  # of training, of a resumed run, of benchmarks
    "--set": 3,  # settings; in eval, a test set
    "--unfinished-exit-code": 2,  # of the run, of the question
    "--val-images": 2,  # for training, for checking
    "--strategy": 2,  # benchmark compares strategies
    "--weights": 2,  # of convert-ckpt, which writes them
}


def options() -> dict[str, list[tuple[str, Any]]]:
    """The options under their first names, with the commands that have them."""
    found: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for name, command in commands():
        for parameter in command.params:
            if parameter.param_type_name == "option" and name and not hasattr(command, "commands"):
                found[parameter.opts[0]].append((name, parameter))
    return found


def wording(parameter: Any) -> tuple[str, str]:
    """Metavar and help, without the default, which may differ."""
    return parameter.metavar or "", parameter.help.partition(" [")[0]


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda each: each if isinstance(each, str) else "")
def test_examples(name: str, command: Any) -> None:
    """Every help has examples, fits 80 columns with words in one piece, and a summary that the list shows whole."""
    text = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80"}).output
    examples = text.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()

    assert any(line.strip().startswith(f"camox {name}") for line in examples)
    assert max(map(len, text.splitlines())) <= 80
    assert [line for line in text.splitlines() if line.endswith("-")] == []
    assert not name or "..." not in command.get_short_help_str(60)


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("resume", "resume [OPTIONS] RUN"),
        ("predict", "predict [OPTIONS] CHECKPOINT PATH..."),
        ("check-data", "check-data [OPTIONS] [DIR]..."),
        ("presets show", "presets show [OPTIONS] NAME"),
    ],
)
def test_usage(name: str, usage: str) -> None:
    """Brackets stand around what may be left out, and nothing around what must be given."""
    assert CliRunner().invoke(app, [*name.split(), "--help"]).output.startswith(f"Usage: camox {usage}\n")


def test_one_flag_one_wording() -> None:
    """A flag has the same words on every command, unless it means something else there, and ends with a full stop."""
    wordings = {flag: {wording(parameter) for _, parameter in found} for flag, found in options().items()}
    texts = {text for several in wordings.values() for _, text in several}

    assert len(wordings) > 60
    assert {flag: len(several) for flag, several in wordings.items() if len(several) > 1} == {
        flag: count for flag, count in WORDINGS.items() if count > 1
    }
    assert [text for text in texts if not text.endswith(".") or not text[0].isupper()] == []


def test_what_a_flag_takes_has_a_name() -> None:
    """A value is called DIR, FILE, N, X, TIME or by its choices; no type of Python's is shown."""
    odd = []
    for flag, found in options().items():
        for command, parameter in found:
            words = (parameter.metavar or "").split("|")
            if not parameter.is_flag and (words in ([""], ["TEXT"]) or len(set(words)) < len(words)):
                odd.append((command, flag, parameter.metavar))

    assert odd == []


def test_auto_where_it_is_accepted() -> None:
    """A batch size of train and resume may be auto; benchmark refuses it and does not offer it."""
    metavars = {name: parameter.metavar for name, parameter in options()["--stage2-batch-size"]}

    assert metavars == {"train": "N|auto", "resume": "N|auto", "benchmark": "N"}
