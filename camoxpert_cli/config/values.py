"""Converts values as users write them (YAML, flag, `--set`) to the types of the schema."""

from __future__ import annotations

import math
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from camoxpert_cli.config.schema import MOST_COUNTED, Setting
from camoxpert_cli.user_path import user_path

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_NULL = {"null", "~"}
_SCALARS = str | int | float | Path
# Stands on the command line for a value that is found by measuring.
AUTO = "auto"


def convert(setting: Setting, value: Any) -> Any:
    """Convert `value` to the setting's type. Raises ValueError with what was expected."""
    kinds, nullable = _kinds(setting.type)
    if isinstance(value, bool):  # as parsed by YAML
        word = "on" if value else "off"
        value = word if any(word in get_args(kind) for kind in kinds) else value
    if value is None or (isinstance(value, str | Path) and str(value).lower() in _NULL):
        if nullable:
            return None
        raise ValueError(expected(setting))
    if isinstance(value, int) and abs(value) >= 2**63:  # Python refuses to print more than 4300 digits
        raise ValueError(expected(setting))
    if setting.parse is not None:
        setting.parse(str(value) if isinstance(value, _SCALARS) else "")
    for kind in kinds:
        try:
            converted = _convert(kind, value)
        except (ValueError, TypeError, OverflowError):
            continue
        if kind is int and converted > MOST_COUNTED == setting.high:
            raise ValueError(f"{expected(setting)}; the maximum is {MOST_COUNTED}")
        if kind not in (int, float) or _within_bounds(setting, converted):
            return _as_paths(converted) if setting.is_path and get_origin(kind) is not Literal else converted
    raise ValueError(expected(setting))


def expected(setting: Setting) -> str:
    """Describe in words what the setting accepts."""
    kinds, nullable = _kinds(setting.type)
    words = [_describe(kind, setting) for kind in kinds]
    if setting.fitted:
        words.append(f"{AUTO} on the command line")
    return ", or ".join([*words, "null"] if nullable else words)


def _kinds(type_hint: Any) -> tuple[list[Any], bool]:
    is_union = get_origin(type_hint) in (Union, types.UnionType)
    options = get_args(type_hint) if is_union else (type_hint,)
    return [option for option in options if option is not type(None)], type(None) in options


def _convert(kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
    elif get_origin(kind) is tuple:
        items = [value] if isinstance(value, str | Path) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str | Path) and str(item) for item in items):
            return tuple(str(item) for item in items)
    elif kind is bool:
        text = str(value).strip().lower() if isinstance(value, _SCALARS) else ""
        if text in _TRUE | _FALSE:
            return text in _TRUE
    elif kind is str:
        if isinstance(value, _SCALARS) and not isinstance(value, bool) and str(value):
            return str(value)
    elif not isinstance(value, bool):
        return _to_number(kind, value)
    raise ValueError


def _as_paths(value: Any) -> Any:
    """Return a path, or several, with `~` expanded; otherwise as written."""
    if isinstance(value, tuple):
        return tuple(map(_as_paths, value))
    try:
        path = user_path(value)
    except ValueError as error:
        raise ValueError(f"a valid path: {error}") from error
    return str(path) if value.startswith("~") else value


def _to_number(kind: type[int] | type[float], value: Any) -> int | float:
    number = kind(value)
    # int() truncates 2.7 to 2; nan and inf are floats, but useless for training.
    if not math.isfinite(number) or (isinstance(value, float) and number != value):
        raise ValueError
    return number


def _within_bounds(setting: Setting, number: float) -> bool:
    low = -math.inf if setting.low is None else setting.low
    high = math.inf if setting.high is None else setting.high
    return low <= number <= high


def _describe(kind: Any, setting: Setting) -> str:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return f"one of {', '.join(choices)}" if len(choices) > 1 else str(choices[0])
    if get_origin(kind) is tuple:
        return "a path or a list of paths"
    words = {bool: "true or false", int: "an integer", float: "a number", str: "text"}[kind]
    return words + _describe_bounds(setting) if kind in (int, float) else words


def _describe_bounds(setting: Setting) -> str:
    if setting.low is not None and setting.high not in (None, MOST_COUNTED):
        return f" from {setting.low:.10g} to {setting.high:.10g}"
    return "" if setting.low is None else f" of at least {setting.low:g}"
