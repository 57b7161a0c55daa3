"""The notebook of `camox guide kaggle --notebook`, and how it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.commands.guide import NOTEBOOK
from tests.helpers.command_lines import in_notebook, notebook_code


def test_command_lines_of_the_notebook_are_found() -> None:
    """Each `!camox` of a cell, with the settings of the first cell in it, and the options that it names as examples."""
    lines = in_notebook()
    heads = [line.split()[0] for line in lines]
    cells = "\n".join(notebook_code()[1:])

    assert heads[: cells.count("!camox ")] == re.findall(r"!camox (\S+)", cells)
    assert 'doctor --preset "kaggle-2xT4" --json' in lines
    assert [line for line in lines if line.startswith("train ") and line.endswith("--stage2-batch-size 6")]
    assert [line for line in lines if line.startswith("resume ") and line.endswith("--gpus 1")]
    assert not [line for line in lines if "{" in line]


def test_the_notebook_is_as_notebooks_are() -> None:
    """Without outputs, with names for its cells, for any Python 3, and with settings where papermill looks for them."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = [cell["id"] for cell in notebook["cells"]]

    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert [(cell["outputs"], cell["execution_count"]) for cell in code] == [([], None)] * len(code)
    assert len(names) == len(set(names))
    assert [cell["id"] for cell in code if "parameters" in cell["metadata"].get("tags", [])] == ["settings"]
    assert re.findall(r"^(\w+) = ", notebook_code()[0], re.MULTILINE) == [
        *("DATA", "PRESET", "RUN", "PREVIOUS", "INSTALL", "TRAIN_OPTIONS", "RESUME_OPTIONS")
    ]


def test_the_notebook_is_valid() -> None:
    """By the schema of the format."""
    nbformat: Any = pytest.importorskip("nbformat", reason="nbformat is not installed")

    nbformat.validate(nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT))


def test_no_command_of_the_notebook_fails_unseen() -> None:
    """IPython goes on after a `!` that failed: each is followed by a check of its exit code."""
    for cell in notebook_code():
        lines = re.sub(r"\\\n\s*", "", cell).splitlines()
        for at, line in enumerate(lines):
            if line.strip().startswith("!"):
                rest = [each.strip() for each in lines[at + 1 :]]
                after = next(each for each in rest if not each.startswith("!") and each != "else:")
                assert "check(" in after, line


def write(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["guide", *arguments])


def test_it_is_written_as_it_is(tmp_path: Path) -> None:
    """Byte for byte, and nothing else is left beside it."""
    path = tmp_path / "mine.ipynb"
    outcome = write("kaggle", "--notebook", str(path))

    assert outcome.exit_code == 0
    assert outcome.stdout == f"Written: {path}\n"
    assert path.read_bytes() == NOTEBOOK.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_an_earlier_one_is_replaced_only_if_asked(tmp_path: Path) -> None:
    """One of camox, edited or with outputs, goes with --overwrite."""
    path = tmp_path / "mine.ipynb"
    edited = NOTEBOOK.read_text(encoding="utf-8").replace("kaggle-2xT4", "kaggle-1xT4")
    path.write_text(edited, encoding="utf-8")
    refused = write("kaggle", "--notebook", str(path))

    assert refused.exit_code == 2
    assert "exists" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert path.read_text(encoding="utf-8") == edited
    assert write("kaggle", "--notebook", str(path), "--overwrite").exit_code == 0
    assert path.read_bytes() == NOTEBOOK.read_bytes()


@pytest.mark.parametrize(
    "content",
    ['{"cells": [], "metadata": {"kernelspec": {}}}', '{"metadata": 5}', "[]", "no notebook", "\xff", ""],
)
def test_another_file_is_never_replaced(tmp_path: Path, content: str) -> None:
    """Whatever camox did not write stays, --overwrite or not."""
    path = tmp_path / "mine.ipynb"
    path.write_bytes(content.encode("latin-1"))
    outcome = write("kaggle", "--notebook", str(path), "--overwrite")

    assert outcome.exit_code == 2
    assert "camox" in outcome.stderr
    assert path.read_bytes() == content.encode("latin-1")


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """It is named, with the command that makes it, and is not made."""
    outcome = write("kaggle", "--notebook", str(tmp_path / "none" / "mine.ipynb"))

    assert outcome.exit_code == 2
    assert f"mkdir -p {tmp_path / 'none'}" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("topic", [["data"], []])
def test_it_belongs_to_one_topic(tmp_path: Path, topic: list[str]) -> None:
    """Without the topic kaggle there is no notebook."""
    outcome = write(*topic, "--notebook", str(tmp_path / "mine.ipynb"))

    assert outcome.exit_code == 2
    assert "camox guide kaggle --notebook FILE" in outcome.stderr
    assert list(tmp_path.iterdir()) == []
