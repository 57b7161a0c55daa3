from __future__ import annotations

import itertools

import torch

from camoxpert_cli.engine.seed import seed_step, seed_weights


def test_step_seed_forgets_what_was_drawn_before() -> None:
    """The numbers of a step depend on its place alone, however many the steps before it drew."""
    draws = []
    for drawn_before in (0, 1000):
        seed_weights(drawn_before)
        torch.rand(drawn_before)
        seed_step(42, epoch=3, sample=16)
        draws.append(torch.rand(5))

    assert torch.equal(*draws)


def test_each_step_has_a_seed_of_its_own() -> None:
    """Seed, epoch and sample each change the numbers, and do not stand in for each other."""
    seeds = set()
    for place in itertools.product(range(6), repeat=3):
        seed_step(*place)
        seeds.add(torch.initial_seed())

    assert len(seeds) == 6**3


def test_step_seed_is_pinned() -> None:
    """The seed of a step never changes: a run that goes on must repeat what the cut run would have drawn."""
    seed_step(42, epoch=3, sample=16)

    assert torch.initial_seed() == 16860132620478309418


def test_weights_seed() -> None:
    """The same seed draws the same weights, another one others."""
    draws = []
    for seed in (1, 1, 2**32 - 1):
        seed_weights(seed)
        draws.append(torch.rand(5))

    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_each_rank_drops_its_own() -> None:
    """At the same place no two ranks draw the same numbers; the first draws those of a run in one process."""
    seeds = []
    for rank in range(8):
        seed_step(42, epoch=3, sample=16, rank=rank)
        seeds.append(torch.initial_seed())
    seed_step(42, epoch=3, sample=16)

    assert len(set(seeds)) == 8
    assert seeds[0] == torch.initial_seed()
