"""Names for the numbers of an event, by which curves are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def named_numbers(event: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number in `values`: as `event/name`, those of a list or mapping as `name/...`, counted from 1."""
    for key, value in values.items():
        yield from _numbers(key if isinstance(value, list | Mapping) else f"{event}/{key}", value)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _numbers(f"{name}/{key}", each)
    elif isinstance(value, list):
        for at, each in enumerate(value, start=1):
            yield from _numbers(f"{name}/{at}", each)
    elif isinstance(value, int | float):
        yield name, value
