"""Parts of a test set that file names and masks tell apart for free."""

from __future__ import annotations

import re
from collections.abc import Sequence

# COD10K-CAM-1-Aquatic-3-Crab-70: the super-class, then the class.
_COD10K = re.compile(r"COD10K-\w+-\d+-([A-Za-z]+)-\d+-")
# Below this share of the picture an object counts as small: 28.8 % of COD10K's test objects (Electronics 14/6/1118).
SMALL_AREA = 0.03


def slices(names: Sequence[str], areas: Sequence[float]) -> dict[str, list[int]]:
    """Indices of the pictures of each slice: COD10K's super-classes by name, then small and other objects.

    `areas` are the shares of the masks, 0..1. A slice that would be empty or the whole set is left out.
    """
    found: dict[str, list[int]] = {}
    for index, match in enumerate(map(_COD10K.match, names)):
        if match:
            found.setdefault(match[1], []).append(index)
    found = dict(sorted(found.items()))
    found[f"area under {SMALL_AREA:.0%}"] = [index for index, area in enumerate(areas) if area < SMALL_AREA]
    found[f"area from {SMALL_AREA:.0%}"] = [index for index, area in enumerate(areas) if area >= SMALL_AREA]
    return {label: indices for label, indices in found.items() if 0 < len(indices) < len(names)}
