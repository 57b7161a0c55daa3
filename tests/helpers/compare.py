"""Finds where two nested structures of plain types and tensors differ, to the last bit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor


def differences(first: Any, second: Any, ignored: Collection[str] = (), where: str = "") -> list[str]:
    """Dotted paths to values that are not the same in type and every bit; keys in `ignored` are passed over."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = [key for key in {**first, **second} if key not in ignored]
        missing = [f"{where}.{key}" for key in keys if key not in first or key not in second]
        both = (differences(first[key], second[key], ignored, f"{where}.{key}") for key in keys if key in first)
        return missing or list(chain.from_iterable(both))
    if type(first) is not type(second):
        return [where]
    if isinstance(first, Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
        return [] if same else [where]
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return [where]
        pairs = enumerate(zip(first, second, strict=True))
        return list(chain.from_iterable(differences(a, b, ignored, f"{where}.{at}") for at, (a, b) in pairs))
    return [] if first == second else [where]
