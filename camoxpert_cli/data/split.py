"""Holds out images for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from camoxpert_cli import console
from camoxpert_cli.data.cod10k import super_class
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.errors import DataError


def hold_out(pairs: Sequence[Pair], fraction: float, seed: int) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Split into training and validation pairs, both sorted by name.

    `fraction`, in (0, 1), is the share of each superclass that is held out for validation.
    Each side gets at least one pair. The choice depends only on names and `seed`: in each superclass the pairs with the
    lowest hashes are held out, so adding or removing an image moves few others. Raises DataError for fewer than two
    pairs.
    """
    if len(pairs) < 2:
        raise DataError(
            f"{console.counted(len(pairs), 'training image')}, too few to hold out any for validation",
            "add training images (at least two are needed), or pass --val-images and --val-masks",
        )
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(super_class(pair.name) or "", []).append(pair)
    total = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    shares = _proportional_shares({name: len(group) for name, group in groups.items()}, total)
    train: list[Pair] = []
    held_out: list[Pair] = []
    for name, group in groups.items():
        shuffled = sorted(group, key=lambda pair: _lot(seed, pair.name))
        held_out += shuffled[: shares[name]]
        train += shuffled[shares[name] :]
    return by_name(train), by_name(held_out)


def _lot(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode(errors="surrogateescape")).digest()


def _proportional_shares(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Distribute `total` in proportion to `sizes`: whole parts first, the rest to the largest remainders."""
    count = sum(sizes.values())
    shares = {name: total * size // count for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(total * sizes[name] % count), name))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def by_name(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Sort pairs by name, the order of the training pairs before they are shuffled."""
    return tuple(sorted(pairs, key=lambda pair: pair.name))
