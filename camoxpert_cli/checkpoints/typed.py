"""Check the content of a file against declared types, and name the first entry that differs."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from torch import Tensor

from camoxpert_cli.errors import cut, shown
from camoxpert_cli.model.stored_tensors import defect


class WrongEntryError(ValueError):
    """An invalid entry: the message names it by its dotted keys and says what was expected."""


@dataclass(frozen=True)
class Within:
    """Numbers from `low` to `high`; without bounds, NaN and infinity are allowed as well."""

    low: float = -math.inf
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high or self == Within()

    def __str__(self) -> str:
        return f"from {self.low:g}" + ("" if self.high >= _LARGEST else f" to {self.high:g}")


@dataclass(frozen=True)
class Having:
    """Keys that a dict must have."""

    names: tuple[str, ...]


_LARGEST = float(2**53)  # the largest float below which all integers are exact

Count = Annotated[int, Within(0, _LARGEST)]
Amount = Annotated[float, Within(0, 1e300)]
Number = Annotated[float, Within()]

_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    NoneType: "nothing",
    Tensor: "a tensor",
    list: "a list",
    tuple: "a list",
    dict: "a dictionary",
}


def check(kind: Any, value: Any, entry: str) -> None:
    """Raise WrongEntryError unless `value`, stored at `entry`, is of the type `kind`.

    Supports plain types, `Annotated` with the classes of this module, unions, Literal, list, tuple, dict, and typed
    dicts and dataclasses as schemas of a dict, in which unknown keys are ignored and fields with a default may be
    missing. A bool does not count as a number; an int is accepted as a float.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        _check_annotated(arguments[0], arguments[1], value, entry)
    elif origin in (Union, UnionType):
        _check_union(arguments, value, entry)
    elif origin is Literal:
        if not any(value is each or (type(value) is type(each) and value == each) for each in arguments):
            _refuse(value, " or ".join(map(str, arguments)), entry)
    elif is_typeddict(kind) or is_dataclass(kind):
        _check_fields(kind, value, entry)
    elif origin in (list, tuple):
        _check_list(origin, arguments, value, entry)
    elif origin is dict:
        _require(isinstance(value, dict), value, _WORDS[dict], entry)
        for key, each in value.items():
            check(arguments[0], key, f"a key of {entry}")
            check(arguments[1], each, f"{entry}.{cut(str(key))}")
    else:
        _check_plain(kind, value, entry)


def _check_annotated(kind: Any, rule: Within | Having, value: Any, entry: str) -> None:
    if isinstance(rule, Having):
        check(kind, value, entry)
        for name in rule.names:
            _require(name in value, None, "", f"{entry}.{name}")
        return
    words = f"{_WORDS[kind]} {rule}" if rule != Within() else _WORDS[kind]
    _require(_is_number(value, whole=kind is int), value, words, entry)
    _require(value in rule, value, words, entry)


def _check_union(kinds: tuple[Any, ...], value: Any, entry: str) -> None:
    others = [kind for kind in kinds if kind is not NoneType]
    if value is None and len(others) < len(kinds):
        return None
    if len(others) == 1:  # reports which part of a structure is wrong
        return check(others[0], value, entry)
    for kind in others:
        with suppress(WrongEntryError):
            return check(kind, value, entry)
    return _refuse(value, f"one of: {', '.join(_WORDS[get_origin(kind) or kind] for kind in others)}", entry)


def _check_fields(kind: Any, value: Any, entry: str) -> None:
    _require(isinstance(value, dict), value, _WORDS[dict], entry)
    if is_typeddict(kind):
        optional = kind.__optional_keys__
    else:
        optional = {each.name for each in fields(kind) if _has_default(each)}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        where = f"{entry}.{name}" if entry else name
        if name in value:
            check(hint, value[name], where)
        elif name not in optional:
            raise WrongEntryError(f"{where} is missing")


def _check_list(kind: type, kinds: tuple[Any, ...], value: Any, entry: str) -> None:
    _require(isinstance(value, list | tuple), value, _WORDS[list], entry)
    if kind is tuple:
        _require(len(value) == len(kinds), value, f"{len(kinds)} values", entry)
    for at, each in enumerate(value):
        check(kinds[at] if kind is tuple else kinds[0], each, f"{entry}.{at}")


def _check_plain(kind: Any, value: Any, entry: str) -> None:
    if kind in (int, float):
        good = _is_number(value, whole=kind is int) and math.isfinite(value)
    else:
        good = isinstance(value, kind)
    _require(good, value, _WORDS[kind], entry)
    if kind is Tensor and (wrong := defect(value)):
        raise WrongEntryError(f"{entry} is {wrong}, expected an ordinary one")


def _is_number(value: Any, *, whole: bool) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _LARGEST
    return isinstance(value, float) and not whole


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _require(good: bool, value: Any, words: str, entry: str) -> None:
    if not good:
        if not words:
            raise WrongEntryError(f"{entry} is missing")
        _refuse(value, words, entry)


def _refuse(value: Any, words: str, entry: str) -> None:
    raise WrongEntryError(f"{entry} is {shown(value)}, expected {words}")
