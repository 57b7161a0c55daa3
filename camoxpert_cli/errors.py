"""What can go wrong for a user, one class a kind, each with its exit code.

CamoxError
├── UsageError         2   an option, a preset or a run folder that cannot be used as asked
│   └── ConfigError    2   a setting that is unknown, of the wrong type, or impossible beside another
├── DataError          3   images or masks that are missing, unreadable or do not fit together
├── CheckpointError    4   a file of weights that cannot be read or belongs to another network
├── DeviceError        5   a GPU that is not there or cannot do what was asked
├── TrainingError      6   a run that cannot go on
├── PeerLostError     75   another process of the same run ended or does not answer
└── Interrupted      130  Ctrl-C; any other signal that asks to end: 128 + its number
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

from camoxpert_cli.signals import EXIT_CODES

_LONGEST_LINE = 200


class CamoxError(Exception):
    """Ends the program with `message` in one sentence, `hint` (what to type next) and `exit_code`; no traceback.

    `details` are lines to look at between the two, such as a short table.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        """All that there is to read, as the command line prints it: in a notebook the last lines of the traceback."""
        return "\n".join(filter(None, (self.message, self.details, self.hint and f"Try:   {self.hint}")))


class UsageError(CamoxError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class DataError(CamoxError):
    exit_code = 3


class CheckpointError(CamoxError):
    exit_code = 4


class DeviceError(CamoxError):
    exit_code = 5


class TrainingError(CamoxError):
    exit_code = 6


class PeerLostError(CamoxError):
    exit_code = 75


class Interrupted(CamoxError):
    """`exit_code` is 128 + the signal's number, as shells have it."""

    exit_code = 130

    def __init__(self, message: str, hint: str = "", exit_code: int = 130) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


def error_of(exit_code: int, message: str, hint: str = "", details: str = "") -> CamoxError:
    """The error that a process told before it ended with `exit_code`: of the class that has it, where there is one."""
    if exit_code in EXIT_CODES:
        return Interrupted(message, hint, exit_code)
    kinds = (UsageError, DataError, CheckpointError, DeviceError, TrainingError, PeerLostError)
    error = {kind.exit_code: kind for kind in kinds}.get(exit_code, CamoxError)(message, hint, details)
    error.exit_code = exit_code
    return error


def first_line(error: object) -> str:
    """Of what an error says, with the lines that it announces; the name of its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((at for at, line in enumerate(lines, start=1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:said]) or type(error).__name__


def one_line(error: object) -> str:
    """The first line, cut off where it is long: CUDA's go on with paragraphs on how to debug them."""
    return cut(first_line(error))


class _Short(reprlib.Repr):
    def repr_Tensor(self, x: Any, level: int) -> str:  # noqa: N802  # named after the class, which loads torch
        return f"a tensor of {'x'.join(map(str, x.shape)) or 'one number'}"

    repr_Parameter = repr_Tensor  # noqa: N815


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = _LONGEST_LINE
_SHORT.maxlevel = 3  # what is deeper may take seconds


def shown(value: object) -> str:
    """`repr` of what a file or a person gave, cut short where it is long, deep, or refers to itself many times over."""
    try:
        return cut(_SHORT.repr(value))
    except ValueError:  # Python writes no number of more than 4300 digits
        return f"{type(value).__name__} of very many digits"


def cut(text: str) -> str:
    """The beginning of what is too long to be read on a screen, up to the end of a word."""
    if len(text) <= _LONGEST_LINE:
        return text
    return f"{text[:_LONGEST_LINE].rpartition(' ')[0] or text[:_LONGEST_LINE]} …"


def nearest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """The names of `known` that look most like `name`, best first; empty where nothing is close."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
