"""Command lines of camox: those that documents show, and what the parser makes of one without running it."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any

import typer
import yaml

from camoxpert_cli.app import app
from camoxpert_cli.commands.guide import FOLDER, NOTEBOOK, TOPICS
from tests.helpers.places import README

DOCUMENTS = (README, *(FOLDER / f"{topic}.md" for topic in TOPICS))
_PROGRAM = re.compile(r"(?:camox|\S+ -m camoxpert_cli)\s")
# What the notebook computes, and a setting of its first cell that is empty there.
_VALUES = {
    "DEVICE": "--gpus 2",
    "counts": "--gpus 1,2",
    "USABLE": "clean.json",
    "CLEAN": "clean.json",
    "quoted": "a.jpg",
    "PREVIOUS": "/kaggle/input/my-first-session",
}


def commands() -> Iterator[tuple[str, Any]]:
    """Name, such as `presets show`, and command; groups too, camox itself as the empty name."""
    yield from _below("", typer.main.get_command(app))


def in_help() -> list[str]:
    """The examples in every help, each as one line."""
    return [line for _, command in commands() for line in _lines(command.help.replace("\b", ""))]


def in_documents() -> list[str]:
    """The command lines in README, in the guide's pages and in the notebook."""
    return [*(line for document in DOCUMENTS for line in in_document(document)), *in_notebook()]


def in_document(path: Path) -> list[str]:
    """Every command line in shell blocks, in files of jobs and between backticks, where a command's name may do."""
    text = path.read_text(encoding="utf-8")
    blocks = code_blocks(text, "bash")
    jobs = [command for block in code_blocks(text, "yaml") for command in _commands_in(yaml.safe_load(block))]
    spans = re.findall(r"`([^`]+)`", without_code(text))
    return [line for part in (*blocks, *jobs, *(span.replace("\n", " ") for span in spans)) for line in _lines(part)]


def code_blocks(text: str, language: str) -> list[str]:
    """The contents of the blocks of code in that language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def _commands_in(node: Any) -> Iterator[str]:
    """What the file of a job runs: a script of SkyPilot, or command and arguments of a container of Kubernetes."""
    if isinstance(node, dict):
        if isinstance(node.get("run"), str):
            yield node["run"]
        if "command" in node:
            yield shlex.join([*node["command"], *node.get("args", [])])
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _commands_in(child)


def without_code(text: str) -> str:
    """Markdown without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def in_notebook() -> list[str]:
    """Every command line in the notebook, with its settings in place of their names.

    Also those with the options that comments on a setting give as examples.
    """
    settings, *cells = notebook_code()
    values = {name: ast.literal_eval(value) for name, value in re.findall(r"^(\w+) = (.+)$", settings, re.MULTILINE)}
    values |= _VALUES
    lines = [
        re.sub(r"\{(\w+)\}", lambda found: values[found[1]], line)
        for cell in cells
        for line in _lines("\n".join(line for line in re.sub(r"\\\n\s*", "", cell).splitlines() if "!camox" in line))
    ]
    for command, examples in re.findall(r"^# .*camox (\w+), such as (.*)$", settings, re.MULTILINE):
        stem = next(line for line in lines if line.split()[0] == command)
        lines += [f"{stem} {more}" for more in re.findall(r'"(--[^"]+)"', examples)]
    return lines


def notebook_code() -> list[str]:
    """The code cells of the notebook, that of the settings first."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def parse(line: str) -> tuple[str, dict[str, Any]] | None:
    """The command that a line calls and its parameters; None where it only prints help.

    Raises ValueError with what is printed where the line is refused.
    """
    group, seen = _listener()
    seen.clear()
    with redirect_stderr(io.StringIO()) as said:
        code = group.main(args=shlex.split(line), prog_name="camox", standalone_mode=False)
    if code:
        raise ValueError(said.getvalue())
    return seen[0] if seen else None


@cache
def _listener() -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    """camox with commands that only note their parameters, and what they noted."""
    group = typer.main.get_command(app)
    seen: list[tuple[str, dict[str, Any]]] = []
    for name, command in _below("", group):
        if not hasattr(command, "commands"):
            command.callback = lambda name=name, **parameters: seen.append((name, parameters))
    return group, seen


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, child in getattr(command, "commands", {}).items():
        yield from _below(f"{name} {word}".strip(), child)


def _lines(text: str) -> Iterator[str]:
    """What stands behind `camox` in each line that calls it, up to what the shell does with its output.

    A notebook's cell has `!` before it, a job of Slurm `srun` with its options.
    """
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        for part in re.split(r"&&|;", line):
            match = _PROGRAM.search(f"{part} ")
            calls = part.strip().removeprefix("!").startswith(("camox", "srun ")) or " -m camoxpert_cli " in part
            if match and calls:
                yield re.split(r"\s[>|]|\s#", f"{part} "[match.end() :])[0].strip()
