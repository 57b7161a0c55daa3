"""Add and remove wrapper prefixes of state dict keys. Pure functions.

The names are those of the original CamoXpert, so only prefixes of wrappers differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from camoxpert_cli.model.stored_tensors import without_wrappers

Value = TypeVar("Value")

DATA_PARALLEL = "module."


def add_prefix(state: Mapping[str, Value]) -> dict[str, Value]:
    """Return a state dict as DataParallel writes it: with `module.` before each key."""
    return {DATA_PARALLEL + key: value for key, value in state.items()}


def renamed_metadata(metadata: Mapping[str, Value], removed: str, added: str) -> dict[str, Value]:
    """Return a state dict's `_metadata` (module path to versions) with the prefix `removed` replaced by `added`.

    Entries of the modules that `removed` stood for are dropped, as are wrappers further inside; modules that `added`
    stands for get none, because they were never saved.
    """
    old, new = removed.removesuffix("."), added.removesuffix(".")
    renamed = {}
    for path, value in metadata.items():
        if path == old or path.startswith(removed):
            inner = without_wrappers(path[len(removed) :]) if path != old else ""
            renamed[".".join(part for part in (new, inner) if part)] = value
    return renamed
