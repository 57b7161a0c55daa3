"""Turn errors in a command line, as the parser words them, into errors like all others of camox."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from camoxpert_cli.errors import UsageError, did_you_mean, nearest, shown

# What a metavar stands for.
_KINDS = {"N": "an integer", "X": "a number"}


def usage_error(error: Exception, ctx: Any, args: Sequence[str] = ()) -> UsageError | None:
    """Return the parser's error in camox's words; None if it is no such error, or is help.

    `ctx` is the context of the command, `args` are the arguments that it was given. The parser's classes are told
    apart by name: Typer took them from Click, and later made them its own.
    """
    if not hasattr(error, "format_message") or ctx is None:
        return None
    kind, see = type(error).__name__, f"{ctx.command_path} --help"
    text = str(getattr(error, "message", ""))
    parameter = getattr(error, "param", None)
    if kind == "NoSuchOption":
        name = str(error.option_name)  # type: ignore[attr-defined]
        options = [each for known in ctx.command.params for each in (*known.opts, *known.secondary_opts)]
        return UsageError(f"unknown option {shown(name)}{_meant(name, options)}", see)
    if kind == "MissingParameter" and parameter is not None:
        required = [_typed(each) for each in ctx.command.params if each.required]
        return UsageError(f"{_name(parameter)} is missing", " ".join([ctx.command_path, *required]))
    if kind == "BadOptionUsage":
        name = str(error.option_name)  # type: ignore[attr-defined]
        known = next((each for each in ctx.command.params if name in each.opts), None)
        if known is not None and "requires" in text:
            return UsageError(f"{name} needs a value", f"{name} {known.metavar}")
    if kind == "BadParameter" and parameter is not None:
        value, expected = _value(parameter, args), _expected(parameter)
        if value is not None and expected:
            return UsageError(f"{_name(parameter)} is {shown(value)}, expected {expected}", see)
        return UsageError(f"{_name(parameter)}: {text.rstrip('.')}", see)
    if found := re.fullmatch(r"Got unexpected extra arguments? ?\(?s?\)? ?\((.*)\)", text, re.DOTALL):
        if any("--dataset-path" in each.opts for each in ctx.command.params):
            return UsageError(f"unexpected argument {shown(found[1])}", f"{ctx.command_path} --dataset-path DATA")
        return UsageError(f"unexpected argument {shown(found[1])}", see)
    if found := re.match(r"No such command '(.*?)'\.", text, re.DOTALL):
        commands = [each for each in ctx.command.list_commands(ctx) if not ctx.command.get_command(ctx, each).hidden]
        return UsageError(f"unknown command {shown(found[1])}{_meant(found[1], commands)}", see)
    return None


def _meant(name: str, known: Sequence[str]) -> str:
    return did_you_mean(nearest(name, known, count=2))


def _name(parameter: Any) -> str:
    return str(parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar)


def _typed(parameter: Any) -> str:
    name = _name(parameter)
    if parameter.param_type_name == "option":
        return f"{name} {parameter.metavar}"
    return f"{name}..." if parameter.nargs == -1 else name


def _value(parameter: Any, args: Sequence[str]) -> str | None:
    """The text that an option was given last."""
    found = None
    for at, text in enumerate(args):
        name, is_assigned, value = text.partition("=")
        if name in parameter.opts and is_assigned:
            found = value
        elif text in parameter.opts and at + 1 < len(args):
            found = args[at + 1]
    return found


def _expected(parameter: Any) -> str:
    """In words, what an option takes; empty if it takes more than numbers or a choice."""
    words = str(parameter.metavar).split("|")
    if len(words) > 1:
        return f"one of {', '.join(words)}"
    kind = _KINDS.get(words[0], "")
    bounds = getattr(parameter, "type", parameter)
    low, high = getattr(bounds, "min", None), getattr(bounds, "max", None)
    if kind and low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    return f"{kind} of at least {low}" if kind and low is not None else kind
