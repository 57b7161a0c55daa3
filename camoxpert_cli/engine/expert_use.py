"""Expert usage over an epoch, from the number of images routed to each expert of each layer (L, E)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# An expert selected for a smaller share of an epoch's images is dead: it hardly learns.
DEAD = 0.01


class ExpertUse(NamedTuple):
    """Per layer: the share of images routed to each expert (0..1), the entropy of the routing, and the dead experts.

    `entropy` is that of the selections over the E experts, divided by log E: 1 if all are used equally. `dead` are
    indices from 0.
    """

    shares: list[list[float]]
    entropy: list[float]
    dead: list[list[int]]


def expert_use(chosen: Sequence[Sequence[float]], top_k: int) -> ExpertUse:
    """Compute expert usage from `chosen` (L, E), counts of images with `top_k` experts each; empty without images."""
    if not any(map(sum, chosen)):
        return ExpertUse([], [], [])
    shares = [[top_k * count / sum(layer) for count in layer] for layer in chosen]
    entropy = [_evenness([share / top_k for share in layer]) for layer in shares]
    return ExpertUse(shares, entropy, [[at for at, share in enumerate(layer) if share < DEAD] for layer in shares])


def added(chosen: Sequence[Sequence[float]], more: Sequence[float], experts: int) -> list[list[float]]:
    """Return `chosen` (L, E), which may still be empty, plus `more`, the same counts flattened row by row."""
    rows = [list(more[start : start + experts]) for start in range(0, len(more), experts)]
    if not chosen:
        return rows
    return [[one + other for one, other in zip(*pair, strict=True)] for pair in zip(chosen, rows, strict=True)]


def format_dead_experts(use: ExpertUse) -> str:
    """Format how many experts are dead and which, counted from 1, as the subject of "selected for fewer than 1%".

    For example "3 of 16 experts (layer 2: 3, 4; layer 3: 4) were each".
    """
    count = sum(map(len, use.dead))
    places = "; ".join(
        f"layer {layer}: {', '.join(str(expert + 1) for expert in experts)}"
        for layer, experts in enumerate(use.dead, start=1)
        if experts
    )
    whole = sum(map(len, use.shares))
    return f"{count} of {whole} experts ({places}) {'was' if count == 1 else 'were each'}"


def _evenness(parts: Sequence[float]) -> float:
    if len(parts) == 1:
        return 1.0
    return -sum(part * math.log(part) for part in parts if part > 0) / math.log(len(parts))
