"""Constants that a layer computes once for each size of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Constants = TypeVar("Constants")
# More than test-time augmentation and resized copies of a network use; images of any size could need any number.
_MOST = 16


def of_size(
    kept: dict[tuple[Any, ...], Constants], key: tuple[Any, ...], compute: Callable[..., Constants]
) -> Constants:
    """Return `compute(*key)`, from `kept` if it is there; the replicas of DataParallel may share `kept`."""
    found = kept.get(key)
    if found is None:
        found = compute(*key)
        if len(kept) >= _MOST:
            kept.clear()
        kept[key] = found
    return found
