"""How measures and numbers are written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

_LABELS = {
    "precision": "Precision",
    "recall": "Recall",
    "f": "F",
    "e": "E",
    "s_measure": "S",
    "e_adaptive": "E adaptive",
    "e_mean": "E mean",
    "e_max": "E max",
    "f_adaptive": "F adaptive",
    "f_mean": "F mean",
    "f_max": "F max",
    "weighted_f": "weighted F",
    "iou": "IoU",
    "dice": "Dice",
    "mae": "MAE",
    "lr": "learning rate",
    "train_loss": "training",
}
ABSENT = "–"


def label(measure: str) -> str:
    """A measure's name for readers: the customary one, or the key itself."""
    return _LABELS.get(measure, measure)


def number(value: float | None) -> str:
    """Three decimals, as the field's papers have them; a dash for what was not measured."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:.3f}"


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values as text of nested settings, in their order."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)
