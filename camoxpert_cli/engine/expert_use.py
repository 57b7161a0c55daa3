"""Which experts the images of an epoch went to, from how many of them chose each expert of each layer (L, E)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# An expert that fewer images of an epoch choose is dead: it hardly learns.
DEAD = 0.01


class ExpertUse(NamedTuple):
    """Per layer: the share of images that chose each expert (0..1), how even the choices were, and the dead experts.

    `entropy` is that of the choices over the E experts, divided by log E: 1 where all are used alike. `dead` are
    places, from 0.
    """

    shares: list[list[float]]
    entropy: list[float]
    dead: list[list[int]]


def expert_use(chosen: Sequence[Sequence[float]], top_k: int) -> ExpertUse:
    """`chosen` (L, E) counts images, each of which chose `top_k` experts of each layer; none without an image."""
    if not any(map(sum, chosen)):
        return ExpertUse([], [], [])
    shares = [[top_k * count / sum(layer) for count in layer] for layer in chosen]
    entropy = [_evenness([share / top_k for share in layer]) for layer in shares]
    return ExpertUse(shares, entropy, [[at for at, share in enumerate(layer) if share < DEAD] for layer in shares])


def added(chosen: Sequence[Sequence[float]], more: Sequence[float], experts: int) -> list[list[float]]:
    """`chosen` (L, E), or nothing yet, and `more` of the same, row after row."""
    rows = [list(more[start : start + experts]) for start in range(0, len(more), experts)]
    if not chosen:
        return rows
    return [[one + other for one, other in zip(*pair, strict=True)] for pair in zip(chosen, rows, strict=True)]


def format_dead_experts(use: ExpertUse) -> str:
    """How many experts are dead, and which, counted from 1."""
    count = sum(map(len, use.dead))
    places = "; ".join(
        f"layer {layer}: {', '.join(str(expert + 1) for expert in experts)}"
        for layer, experts in enumerate(use.dead, start=1)
        if experts
    )
    whole = sum(map(len, use.shares))
    return f"{count} of the network's {whole} experts, which hardly learn ({places})"


def _evenness(parts: Sequence[float]) -> float:
    if len(parts) == 1:
        return 1.0
    return -sum(part * math.log(part) for part in parts if part > 0) / math.log(len(parts))
