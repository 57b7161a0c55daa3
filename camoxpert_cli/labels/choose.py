"""Chooses the classes whose objects become the mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from camoxpert_cli.data.levels import IGNORED
from camoxpert_cli.errors import DataError, did_you_mean, nearest, shown
from camoxpert_cli.labels.index_masks import FORMAT as INDEX_MASKS
from camoxpert_cli.labels.labelled import Labels

_MOST_LISTED = 30


def choose(labels: Labels, wanted: Sequence[str]) -> dict[str, int]:
    """Return the chosen classes with the number of their objects: those `wanted` by name or number, or else all.

    Level 255 of index masks is chosen only if wanted. Raises DataError for a class that does not occur.
    """
    counts = Counter(each.name for image in labels.images for each in image.objects)
    numbers = {str(each.number): each.name for image in labels.images for each in image.objects}
    if not wanted:
        ignored = str(IGNORED) if labels.format == INDEX_MASKS else None
        return {name: count for name, count in counts.most_common() if name != ignored}
    chosen = {}
    for each in wanted:
        name = each if each in counts else numbers.get(each)
        if name is None:
            listed = [_described(name, count, numbers) for name, count in counts.most_common(_MOST_LISTED)]
            more = f", and {len(counts) - _MOST_LISTED} more" if len(counts) > _MOST_LISTED else ""
            similar = did_you_mean(f"--class {name}" for name in nearest(each, counts))
            raise DataError(
                f"no object of class {shown(each)}{similar}", f"one of these classes: {', '.join(listed)}{more}"
            )
        chosen[name] = counts[name]
    return chosen


def _described(name: str, count: int, numbers: dict[str, str]) -> str:
    number = next((number for number, each in numbers.items() if each == name and number not in ("None", name)), None)
    return f"{name} ({count})" if number is None else f"{name} or {number} ({count})"
