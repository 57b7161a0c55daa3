"""Formats numbers and settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

ABSENT = "–"


def number(value: float | None) -> str:
    """Format with three decimals, as in the papers of the field; a dash for a missing value."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:.3f}"


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted keys and values of nested settings as text, in their order."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)
