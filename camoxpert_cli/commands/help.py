"""Command classes: plain help that fits 80 columns without breaking flags, grouped by section, and path arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from camoxpert_cli import console
from camoxpert_cli.commands.usage_errors import usage_error
from camoxpert_cli.errors import UsageError, shown
from camoxpert_cli.user_path import user_path

_UNGROUPED = "Options"
# Stands for the hyphens in a text while it is wrapped: lines are never broken at it.
_UNBREAKABLE = "\N{NON-BREAKING HYPHEN}"
# Of Typer or, in its older versions, of click.
_Context: Any = TyperCommand.context_class
_Formatter: Any = _Context.formatter_class


class _KeepsWordsWhole(_Formatter):  # type: ignore[misc]
    """Help formatter that breaks lines between words only: `--batch-size` and `check-data` stay in one piece."""

    def write_text(self, text: str) -> None:
        super().write_text(_unbreakable(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], *arguments: Any, **options: Any) -> None:
        super().write_dl([(name, _unbreakable(text)) for name, text in rows], *arguments, **options)

    def getvalue(self) -> str:
        return str(super().getvalue()).replace(_UNBREAKABLE, "-")


class _HelpContext(_Context):  # type: ignore[misc]
    formatter_class = _KeepsWordsWhole


class PrintsHelp:
    """Mixin for Typer commands that prints help as a result like any other, with words in one piece."""

    context_class: Any = _HelpContext

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.callback = _print_help
        return option


def _unbreakable(text: str) -> str:
    return text.replace("-", _UNBREAKABLE)


def _print_help(ctx: Any, _: Any, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        console.result(ctx.get_help())
        ctx.exit()


class SectionedCommand(PrintsHelp, TyperCommand):
    """Command that lists options under their `rich_help_panel`, in declaration order.

    `~` is expanded in arguments and options that are paths; impossible paths are refused.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        given = list(args)  # the parser empties the list
        for at, text in enumerate(given):
            # As a path, an empty string would be the current folder.
            if text == "" or re.fullmatch(r"--[a-z0-9-]+=", text):
                before = given[at - 1] if at and given[at - 1].startswith("--") else "an argument"
                raise UsageError(
                    f"{text.removesuffix('=') or before} is empty",
                    "leave it out, or set the shell variable that it comes from",
                )
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if (explained := usage_error(error, ctx, given)) is not None and not ctx.resilient_parsing:
                raise explained from error
            raise

    def invoke(self, ctx: Any) -> Any:
        for parameter in self.get_params(ctx):
            value = ctx.params.get(parameter.name)
            flag = parameter.opts[0] if parameter.param_type_name == "option" else str(parameter.metavar)
            if isinstance(value, Path):
                ctx.params[parameter.name] = _as_meant(flag, value)
            elif isinstance(value, list | tuple):
                ctx.params[parameter.name] = [
                    _as_meant(flag, each) if isinstance(each, Path) else each for each in value
                ]
        return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return argument names without the braces that Typer adds to required ones."""
        return [re.sub(r"^\{(.*)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = _UNGROUPED
                if parameter.param_type_name == "argument":
                    title, record = "Arguments", (record[0].partition(" <")[0], record[1])  # without the Python type
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _as_meant(flag: str, path: Path) -> Path:
    try:
        return user_path(path)
    except ValueError as error:
        raise UsageError(f"{flag} is {shown(str(path))}: {error}", "check the path for typos") from error
