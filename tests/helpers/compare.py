"""Finds where two nested structures of plain types and tensors differ, to the last bit or by more than rounding."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor


def differences(
    first: Any, second: Any, ignored: Collection[str] = (), where: str = "", *, tolerance: float = 0.0
) -> list[str]:
    """Dotted paths to values that are not the same in type and every bit; keys in `ignored` are passed over.

    With a `tolerance`, floating-point numbers may differ by that part of the largest of a tensor, or of 1.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = [key for key in {**first, **second} if key not in ignored]
        missing = [f"{where}.{key}" for key in keys if key not in first or key not in second]
        both = (
            differences(first[key], second[key], ignored, f"{where}.{key}", tolerance=tolerance)
            for key in keys
            if key in first
        )
        return missing or list(chain.from_iterable(both))
    if type(first) is not type(second):
        return [where]
    if isinstance(first, Tensor):
        same = first.dtype == second.dtype and (torch.equal(first, second) or _are_near(first, second, tolerance))
        return [] if same else [where]
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return [where]
        pairs = enumerate(zip(first, second, strict=True))
        found = (differences(a, b, ignored, f"{where}.{at}", tolerance=tolerance) for at, (a, b) in pairs)
        return list(chain.from_iterable(found))
    if isinstance(first, float) and abs(first - second) <= tolerance * max(1.0, abs(first)):
        return []
    return [] if first == second else [where]


def _are_near(first: Tensor, second: Tensor, tolerance: float) -> bool:
    if not first.is_floating_point() or first.shape != second.shape:
        return False
    return bool((first - second).abs().max() <= tolerance * max(1.0, float(first.abs().max())))
