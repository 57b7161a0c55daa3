"""Names of state dicts with or without the prefix of a wrapper. Pure functions.

Our names are those of the original program, so only what wraps a network has to go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from camoxpert_cli.model.stored_tensors import without_wrappers

Value = TypeVar("Value")

DATA_PARALLEL = "module."


def add_prefix(state: Mapping[str, Value]) -> dict[str, Value]:
    """Bare keys as DataParallel writes them: `module.` before each."""
    return {DATA_PARALLEL + key: value for key, value in state.items()}


def renamed_metadata(metadata: Mapping[str, Value], removed: str, added: str) -> dict[str, Value]:
    """A state dict's `_metadata` (module path to versions) after the prefix `removed` became `added`.

    The modules that `removed` stood for go, and so do wrappers further inside; those that `added` stands for were never
    saved.
    """
    old, new = removed.removesuffix("."), added.removesuffix(".")
    renamed = {}
    for path, value in metadata.items():
        if path == old or path.startswith(removed):
            inner = without_wrappers(path[len(removed) :]) if path != old else ""
            renamed[".".join(part for part in (new, inner) if part)] = value
    return renamed
