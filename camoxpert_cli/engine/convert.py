"""Foreign state dicts to ours: pure functions on keys.

Our names are those of the original program, so only wrappers' prefixes have to go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from camoxpert_cli.errors import CheckpointError

Value = TypeVar("Value")

# DataParallel and DistributedDataParallel; torch.compile.
WRAPPER_PREFIXES = ("module.", "_orig_mod.")


def strip_prefixes(state: Mapping[str, Value]) -> dict[str, Value]:
    """Take away leading wrapper prefixes that every key has, in any nesting; the middle of a key is never touched.

    Raises CheckpointError where only some keys have one.
    """
    keys = list(state)
    while prefix := _shared_prefix(keys):
        keys = [key.removeprefix(prefix) for key in keys]
    return dict(zip(keys, state.values(), strict=True))


def _shared_prefix(keys: list[str]) -> str | None:
    for prefix in WRAPPER_PREFIXES:
        having = [key for key in keys if key.startswith(prefix)]
        if having and len(having) < len(keys):
            without = next(key for key in keys if not key.startswith(prefix))
            raise CheckpointError(
                f"{len(having)} of {len(keys)} keys begin with {prefix!r} and others, such as {without}, do not: "
                "two state dicts seem to be mixed"
            )
        if having:
            return prefix
    return None
