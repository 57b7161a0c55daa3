"""Times as people write them: `30s`, `10m`, `11h30m`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PARTS = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_duration(text: str) -> int:
    """Seconds in `text`. Raises ValueError, with what was expected, unless it is a time above zero."""
    match = _PARTS.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        raise ValueError("a time above zero such as 30s, 10m or 11h30m")
    return total


def format_duration(seconds: float) -> str:
    """The shortest form, rounded to the second: 5400 -> `1h30m`. `parse_duration` reads all but `0s` back."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest}s" if rest else ""]
    return "".join(parts) or "0s"


@dataclass(frozen=True)
class Interval:
    """How often to do something: every `seconds`, or every `steps` optimizer steps; the other one is None."""

    seconds: int | None = None
    steps: int | None = None

    def is_due(self, seconds: float, steps: int) -> bool:
        """Whether it is time, `seconds` after the last time and with `steps` done in the epoch."""
        if self.seconds is not None:
            return seconds >= self.seconds
        return self.steps is not None and steps % self.steps == 0


def parse_interval(text: str) -> Interval:
    """A duration, or a bare number of optimizer steps. Raises ValueError with what was expected."""
    try:
        if text.strip().isdecimal() and int(text) > 0:
            return Interval(steps=int(text))
        return Interval(seconds=parse_duration(text))
    except ValueError as error:
        raise ValueError("a time such as 30s, 10m or 1h, or a number of optimizer steps above zero") from error
