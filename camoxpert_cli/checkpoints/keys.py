"""Keys of state dicts: wrappers' prefixes taken away or added. Pure functions.

Our names are those of the original program, so only what wraps a network has to go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from camoxpert_cli.errors import CheckpointError

Value = TypeVar("Value")

# DataParallel and DistributedDataParallel; torch.compile; Fabric and DeepSpeed; the attribute under which Lightning
# modules and others keep a network.
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "_forward_module.", "model.", "network.")
DATA_PARALLEL = "module."
# Beside the network under `module.`, torch's AveragedModel stores how many it has averaged.
_AVERAGED_COUNT = "n_averaged"
_MOST_SHOWN = 5


def strip_prefixes(state: Mapping[str, Value]) -> dict[str, Value]:
    """Take away leading wrapper prefixes that every key has, in any nesting; the middle of a key is never touched.

    Raises CheckpointError where only some keys have one.
    """
    keys = list(bare(state))
    prefix = shared_prefix(keys)
    return {key.removeprefix(prefix): state[key] for key in keys}


def add_prefix(state: Mapping[str, Value]) -> dict[str, Value]:
    """The keys as DataParallel writes them: one `module.` before each, whatever wrappers they had."""
    return {DATA_PARALLEL + key: value for key, value in strip_prefixes(state).items()}


def bare(state: Mapping[str, Value]) -> Mapping[str, Value]:
    """`state` without the counter that torch's AveragedModel adds to a network's keys."""
    others = {key: value for key, value in state.items() if key != _AVERAGED_COUNT}
    averaged = len(others) < len(state) and all(key.startswith(DATA_PARALLEL) for key in others)
    return others if averaged else state


def shared_prefix(keys: Iterable[str]) -> str:
    """The wrapper prefixes that all keys begin with, empty where there is none. Raises CheckpointError as above."""
    rest, prefix = list(keys), ""
    while wrapped := [key for key in rest if _wrapper_of(key)]:
        wrappers = sorted({_wrapper_of(key) for key in wrapped})
        if len(wrapped) < len(rest) or len(wrappers) > 1:
            without = [key for key in rest if not _wrapper_of(key)]
            odd = [prefix + key for key in min(without or rest, wrapped, key=len)]
            shown = ", ".join(odd[:_MOST_SHOWN]) + (", and more" if len(odd) > _MOST_SHOWN else "")
            others = " and others do not" if without else ""
            raise CheckpointError(
                f"{len(wrapped)} of {len(rest)} keys begin with {' or '.join(repr(prefix + each) for each in wrappers)}"
                f"{others}, so that two state dicts seem to be mixed: {shown}",
                details="\n".join(odd),
            )
        prefix += wrappers[0]
        rest = [key.removeprefix(wrappers[0]) for key in rest]
    return prefix


def renamed_metadata(metadata: Mapping[str, Value], removed: str, added: str) -> dict[str, Value]:
    """A state dict's `_metadata` (module path to versions) after the prefix `removed` became `added`.

    The modules that `removed` stood for go; those that `added` stands for were never saved.
    """
    old, new = removed.removesuffix("."), added.removesuffix(".")
    renamed = {}
    for path, value in metadata.items():
        if path == old or path.startswith(removed):
            inner = path[len(removed) :] if path != old else ""
            renamed[".".join(part for part in (new, inner) if part)] = value
    return renamed


def _wrapper_of(key: str) -> str:
    """The wrapper prefix that the key begins with, empty for none; what follows is never empty."""
    return next((prefix for prefix in WRAPPER_PREFIXES if key.startswith(prefix) and key != prefix), "")
