"""Command lines of camox: those that documents show, and what the parser makes of one without running it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from camoxpert_cli.app import app
from tests.helpers.places import README

_PROGRAM = re.compile(r"(?:camox|\S+ -m camoxpert_cli)\s")


def commands() -> Iterator[tuple[str, Any]]:
    """Name, such as `presets show`, and command; groups too, camox itself as the empty name."""
    yield from _below("", typer.main.get_command(app))


def in_help() -> list[str]:
    """The examples in every help, each as one line."""
    return [line for _, command in commands() for line in _lines(command.help.replace("\b", ""))]


def in_readme() -> list[str]:
    """Every command line in README's shell blocks and between backticks, where it may be a command's name alone."""
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [line for part in (*blocks, *(span.replace("\n", " ") for span in spans)) for line in _lines(part)]


def parse(line: str) -> tuple[str, dict[str, Any]] | None:
    """The command that a line calls and its parameters; None where it only prints help. Raises a usage error."""
    group, seen = _listener()
    seen.clear()
    group.main(args=shlex.split(line), prog_name="camox", standalone_mode=False)
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

    A notebook's cell has `!` before it.
    """
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        for part in re.split(r"&&|;", line):
            match = _PROGRAM.search(f"{part} ")
            if match and (part.strip().removeprefix("!").startswith("camox") or " -m camoxpert_cli " in part):
                yield re.split(r"\s[>|]|\s#", f"{part} "[match.end() :])[0].strip()
