from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from camoxpert_cli import console
from camoxpert_cli.commands.help import PrintsHelp, SectionedCommand
from camoxpert_cli.commands.options import AsJson
from camoxpert_cli.config.explain import Entry, Explained, account, catalogue, explain, recipe

Name = Annotated[str, typer.Argument(metavar="NAME", help="A preset's name, or a .yaml file.", show_default=False)]


class _ListFirst(PrintsHelp, TyperGroup):
    """Group for which `camox presets` alone means `camox presets list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListFirst,
    help="""List presets, show their settings, and check your own.

    Your own presets are .yaml files. Those in ~/.config/camox/presets ($XDG_CONFIG_HOME is respected) can be given by
    name, others by path.

    \b
    Examples:
      camox presets
      camox presets show kaggle-2xT4 --explain
      camox presets show kaggle-1xT4 > mine.yaml
      camox presets check mine.yaml
    """,
    rich_markup_mode=None,
)


@app.command("list", cls=SectionedCommand)
def list_presets(as_json: AsJson = False) -> None:
    """List all presets with their purpose and hardware.

    \b
    Examples:
      camox presets
      camox presets list --json
    """
    entries = catalogue()
    if as_json:
        console.result(json.dumps([asdict(entry) | {"path": str(entry.path)} for entry in entries], indent=2))
        return
    width = max(len(entry.name) for entry in entries)
    for built_in, group in groupby(entries, key=lambda entry: entry.built_in):
        members = list(group)
        if not built_in:
            console.result(f"\nYour own, in {members[0].path.parent}:")
        for entry in members:
            first, *rest = _in_lines(entry)
            console.entry(f"{entry.name:<{width}}", first)
            for line in rest:
                console.entry(" " * width, line)


@app.command("show", cls=SectionedCommand)
def show(
    name: Name,
    explained: Annotated[
        bool, typer.Option("--explain", help="Print every setting, its value and where it comes from.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a preset as a self-contained preset file.

    It contains all settings of the preset and of those it extends.

    \b
    Examples:
      camox presets show kaggle-2xT4
      camox presets show kaggle-2xT4-fast --explain
      camox presets show kaggle-1xT4 > mine.yaml
    """
    found = explain(name)
    if as_json:
        console.result(json.dumps(to_json(found), indent=2))
    else:
        console.result("\n".join(_rows(found)) if explained else recipe(found))


@app.command("check", cls=SectionedCommand)
def check(name: Annotated[str, typer.Argument(metavar="FILE", help="A .yaml file, or a preset's name.")]) -> None:
    """Validate a preset and print what it resolves to.

    Reports all errors in the preset and in those it extends, and exits with code 2 if there are any. Conflicts between
    settings are reported only after all values are valid.

    \b
    Examples:
      camox presets check mine.yaml
    """
    console.result("\n".join(account(explain(name))))


def to_json(explained: Explained) -> dict[str, Any]:
    """Return everything known about a preset as plain types; `extends` begins with its parent."""
    preset = explained.preset
    return {
        "name": preset.name,
        "path": str(preset.path),
        "summary": preset.summary,
        "hardware": preset.hardware,
        "claim": preset.claim,
        "extends": [each.name for each in reversed(explained.chain[:-1])],
        "settings": {value.key: {"value": value.value, "origin": value.origin} for value in explained.values},
    }


def _in_lines(entry: Entry) -> list[str]:
    if entry.problem:
        return ["invalid:", *entry.problem.splitlines()]
    return [entry.summary, *([f"on {entry.hardware}"] if entry.hardware else [])]


def _rows(found: Explained) -> list[str]:
    keys = max(len(value.key) for value in found.values)
    texts = max(len(value.text) for value in found.values)
    return [f"{value.key:<{keys}}  {value.text:<{texts}}  {value.source}" for value in found.values]
