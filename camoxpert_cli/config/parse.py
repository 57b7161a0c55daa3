"""Parsers of values as users type them: durations, GPUs, names, the cache, test-time augmentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from camoxpert_cli import console
from camoxpert_cli.errors import UsageError, nearest

# Words meant as on or off; a folder with such a name can be given as ./no.
_WORDS = {"true", "false", "yes", "no", "on", "none", "0", "1"}


def parse_cache(text: str) -> str:
    """Return `text`: "auto", "off" or a folder. Raises ValueError with what was expected."""
    if text.strip().lower() in _WORDS:
        raise ValueError("auto, off, or a folder")
    return text


def parse_devices(text: str) -> tuple[int, ...]:
    """Parse GPU indices: `0,2` -> (0, 2). Raises ValueError with what was expected."""
    numbers = _numbers(text)
    if not numbers or not 0 <= min(numbers) <= max(numbers) < 1024 or len(set(numbers)) < len(numbers):
        raise ValueError("distinct GPU indices, such as 0,2")
    return numbers


def parse_counts(text: str) -> tuple[int, ...]:
    """Parse several numbers of GPUs: `1,2` -> (1, 2). Raises ValueError with what was expected."""
    counts = _numbers(text)
    if not counts or not 1 <= min(counts) <= max(counts) <= 1024 or len(set(counts)) < len(counts):
        raise ValueError("distinct positive counts, such as 1,2")
    return counts


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        return ()


_PARTS = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
# Keeps clock arithmetic from overflowing.
_LONGEST = 10 * 365 * 86400


def parse_duration(text: str) -> int:
    """Parse a duration to seconds. Raises ValueError, with what was expected, unless it is above zero."""
    match = _PARTS.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        raise ValueError("a duration above zero, such as 30s, 10m or 11h30m")
    if total > _LONGEST:
        raise ValueError("a duration of at most ten years")
    return total


def format_duration(seconds: float) -> str:
    """Format a duration in its shortest form, rounded to the second: 5400 -> `1h30m`.

    `parse_duration` reads everything but `0s` back.
    """
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest}s" if rest else ""]
    return "".join(parts) or "0s"


@dataclass(frozen=True)
class Sessions:
    """A number of sessions of the same length, in seconds each."""

    count: int
    seconds: int

    def __str__(self) -> str:
        return f"{f'{self.count}x' if self.count > 1 else ''}{format_duration(self.seconds)}"


def parse_sessions(text: str) -> Sessions:
    """Parse a duration, or several sessions of it: `3x12h`. Raises ValueError with what was expected."""
    match = re.fullmatch(r"(?:([1-9]\d{0,3})x)?([^x]*)", text.strip(), re.ASCII)
    try:
        if match is None:
            raise ValueError("a number of sessions")
        return Sessions(int(match[1] or 1), parse_duration(match[2]))
    except ValueError as error:
        raise ValueError("a duration such as 9h, or a number of sessions and their duration, such as 3x12h") from error


@dataclass(frozen=True)
class Interval:
    """How often to do something: every `seconds`, or every `steps` optimizer steps; the other is None."""

    seconds: int | None = None
    steps: int | None = None

    def is_due(self, seconds: float, steps: int) -> bool:
        """Return whether it is due, `seconds` after the last time and after `steps` steps of the epoch."""
        if self.seconds is not None:
            return seconds >= self.seconds
        return self.steps is not None and steps % self.steps == 0


def parse_interval(text: str) -> Interval:
    """Parse a duration, or a bare number of optimizer steps. Raises ValueError with what was expected."""
    try:
        if text.strip().isdecimal() and int(text) > 0:
            return Interval(steps=int(text))
        return Interval(seconds=parse_duration(text))
    except ValueError as error:
        raise ValueError("a duration such as 30s, 10m or 1h, or a number of optimizer steps above zero") from error


def parse_names(flag: str, text: str, known: Sequence[str], *, expected: str, example: str) -> tuple[str, ...]:
    """Parse names: `a,b` -> ("a", "b"), each of them in `known`, without repetition.

    Raises UsageError with what was `expected`, and as a hint the known name nearest to the first unknown one or, if
    none is near, `example`.
    """
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        guess = (nearest((unknown or names)[0], known) or [example])[0]
        raise UsageError(f"{flag} is {text!r}, expected {expected}", f"{flag} {guess}")
    return names


def describe_unpaired(images_flag: str, masks_flag: str, images: int, masks: int) -> str:
    """Describe that two flags that belong together were given different numbers of folders, such as 1 and 0."""

    def given(flag: str, count: int) -> str:
        return f"{flag} has {console.counted(count, 'folder')}" if count else f"{flag} is missing"

    counts = f"{given(images_flag, images)}, {given(masks_flag, masks)}"
    return f"{images_flag} and {masks_flag} belong together: {counts}"


SCALES = (0.75, 1.0, 1.25)
_KNOWN = ("flip", "scales")


@dataclass(frozen=True)
class Tta:
    """Test-time augmentation: `scales` as factors of the input size and, with `flip`, a mirror image of each."""

    flip: bool
    scales: tuple[float, ...]


NO_TTA = Tta(flip=False, scales=(1.0,))


def parse_tta(text: str) -> Tta:
    """Parse `flip`, `scales` (0.75, 1 and 1.25) or `flip,scales`. Raises UsageError."""
    names = parse_names("--tta", text, _KNOWN, expected="flip, scales or flip,scales", example="flip")
    return Tta("flip" in names, SCALES if "scales" in names else NO_TTA.scales)
