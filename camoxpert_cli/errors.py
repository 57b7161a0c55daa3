"""Errors that a user can cause or fix, one class per kind, each with its exit code.

CamoxError
├── UsageError         2   an option, preset or run folder that cannot be used as requested
│   └── ConfigError    2   a setting that is unknown, of the wrong type, or incompatible with another
├── DataError          3   images or masks that are missing, unreadable or do not match
├── CheckpointError    4   a weights file that cannot be read or belongs to another network
├── DeviceError        5   a GPU that is missing or cannot do what was requested
├── TrainingError      6   a run that cannot continue
├── PeerLostError     75   another process of the same run ended or stopped responding
└── Interrupted      130  Ctrl-C; other termination signals: 128 + signal number
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

from camoxpert_cli.signals import EXIT_CODES

_LONGEST_LINE = 200


class CamoxError(Exception):
    """Error that ends the program without a traceback: one sentence, a hint on what to type next, and an exit code.

    `details` are lines printed between message and hint, such as a short table.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        """Return message, details and hint as the command line prints them; notebooks show them after the traceback."""
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
    """Stopped by a signal; `exit_code` is 128 + the signal's number, as in shells."""

    exit_code = 130

    def __init__(self, message: str, hint: str = "", exit_code: int = 130) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


def error_of(exit_code: int, message: str, hint: str = "", details: str = "") -> CamoxError:
    """Return the error that a process reported before it ended with `exit_code`, of the class with that code."""
    if exit_code in EXIT_CODES:
        return Interrupted(message, hint, exit_code)
    kinds = (UsageError, DataError, CheckpointError, DeviceError, TrainingError, PeerLostError)
    error = {kind.exit_code: kind for kind in kinds}.get(exit_code, CamoxError)(message, hint, details)
    error.exit_code = exit_code
    return error


def first_line(error: object) -> str:
    """Return an error's first line, with the next ones if it ends in a colon; its class name if it is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((at for at, line in enumerate(lines, start=1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:said]) or type(error).__name__


def one_line(error: object) -> str:
    """Return `first_line`, shortened if it is long: CUDA's messages continue with paragraphs on debugging."""
    return cut(first_line(error))


class _Short(reprlib.Repr):
    def repr_Tensor(self, x: Any, level: int) -> str:  # noqa: N802  # named after the class, without importing torch
        return f"a tensor of {'x'.join(map(str, x.shape)) or 'one number'}"

    repr_Parameter = repr_Tensor  # noqa: N815


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = _LONGEST_LINE
_SHORT.maxlevel = 3  # deeper nesting may take seconds


def shown(value: object) -> str:
    """Return the `repr` of a value from a file or a user, shortened if it is long, nested or self-referential."""
    try:
        return cut(_SHORT.repr(value))
    except ValueError:  # Python refuses to print more than 4300 digits
        return f"{type(value).__name__} with thousands of digits"


def cut(text: str) -> str:
    """Return `text`, shortened at a word boundary if it is too long for a screen."""
    if len(text) <= _LONGEST_LINE:
        return text
    return f"{text[:_LONGEST_LINE].rpartition(' ')[0] or text[:_LONGEST_LINE]} …"


def nearest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Return the names in `known` most similar to `name`, best first; empty if nothing is close."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)


def did_you_mean(names: Iterable[str]) -> str:
    """Return the end of a message that suggests `names`; empty if there are none."""
    joined = " or ".join(names)
    return f"; did you mean {joined}?" if joined else ""
