from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from camoxpert_cli.data.sampling import EpochBatches, batch_sizes, epoch_order, ranks_with_samples
from camoxpert_cli.errors import DataError

counts, per_ranks, worlds = st.integers(1, 200), st.integers(1, 9), st.integers(1, 5)


def all_ranks(
    count: int, per_rank: int, world: int, epoch: int = 0, position: int = 0
) -> list[list[list[tuple[int, int]]]]:
    """The batches of each rank: [rank][batch][sample]."""
    samplers = [EpochBatches(count, per_rank, 3, rank, world) for rank in range(world)]
    for sampler in samplers:
        sampler.start_at(epoch, position)
    return [list(sampler) for sampler in samplers]


def stream(batches: list[list[list[tuple[int, int]]]]) -> list[int]:
    """All ranks' samples in the order of the epoch."""
    return [index for batch in zip(*batches, strict=True) for share in batch for _, index in share]


@settings(deadline=None)
@given(counts, st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_order_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    """An epoch's order holds every index once and is the same each time."""
    order = epoch_order(count, seed, epoch)

    assert sorted(order.tolist()) == list(range(count))
    assert order.tolist() == epoch_order(count, seed, epoch).tolist()


def test_order_differs_between_epochs_and_seeds() -> None:
    """Each epoch and each seed has an order of its own."""
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}

    assert len(orders) == 25


def test_order_is_pinned() -> None:
    """The order of a seed never changes: a run that goes on must see the rest of its epoch."""
    assert epoch_order(8, 42, 3).tolist() == [6, 5, 1, 3, 4, 2, 7, 0]


@settings(deadline=None)
@given(counts, per_ranks, worlds)
def test_who_has_samples(count: int, per_rank: int, world: int) -> None:
    """Of each batch, by its size alone; the last rank always."""
    assume(count >= world)
    batches = zip(*all_ranks(count, per_rank, world), strict=True)
    found = [tuple(rank for rank, own in enumerate(batch) if own) for batch in batches]

    assert found == [ranks_with_samples(size, world) for size in batch_sizes(count, per_rank, world)]
    assert all(ranks[-1] == world - 1 for ranks in found)


@settings(deadline=None)
@given(counts, per_ranks, worlds)
def test_each_sample_once(count: int, per_rank: int, world: int) -> None:
    """Over all ranks an epoch holds each sample exactly once, in the epoch's order."""
    assume(count >= world)

    assert stream(all_ranks(count, per_rank, world, epoch=2)) == epoch_order(count, 3, 2).tolist()


@settings(deadline=None)
@given(counts, per_ranks, worlds)
def test_shares(count: int, per_rank: int, world: int) -> None:
    """Every rank has as many batches as any other, at most one sample fewer than its neighbours, and none too many."""
    assume(count >= world)
    batches = all_ranks(count, per_rank, world)

    sizes = [[len(share) for share in batch] for batch in zip(*batches, strict=True)]
    assert all(max(shares) - min(shares) <= 1 for shares in sizes)
    assert all(min(shares) == per_rank for shares in sizes[:-1])
    assert max(max(shares) for shares in sizes) <= per_rank
    assert [sum(shares) for shares in sizes] == EpochBatches(count, per_rank, 3, 0, world).sizes()


@settings(deadline=None)
@given(counts, per_ranks, worlds)
def test_batches_of_ranks_are_those_of_one(count: int, per_rank: int, world: int) -> None:
    """Put together, the ranks' batches are those of a single rank with as many samples a step."""
    assume(count >= world)
    batches = zip(*all_ranks(count, per_rank, world), strict=True)

    together = [[key for share in batch for key in share] for batch in batches]
    assert together == all_ranks(count, per_rank * world, 1)[0]


@settings(deadline=None)
@given(counts, per_ranks, worlds, st.data())
def test_cut_between_any_two_batches(count: int, per_rank: int, world: int, data: st.DataObject) -> None:
    """Going on from where an epoch was cut gives the batches that were left, rank by rank."""
    assume(count >= world)
    sizes = batch_sizes(count, per_rank, world)
    done = data.draw(st.integers(0, len(sizes)))
    whole = all_ranks(count, per_rank, world)

    rest = all_ranks(count, per_rank, world, position=sum(sizes[:done]))

    assert rest == [batches[done:] for batches in whole]


@settings(deadline=None)
@given(counts, per_ranks, worlds, st.data())
def test_cut_and_go_on_with_other_ranks(count: int, per_rank: int, world: int, data: st.DataObject) -> None:
    """From any position, with any batch and number of ranks, the rest of the epoch's order comes, each sample once."""
    assume(count >= world)
    position = data.draw(st.integers(0, count))
    left = epoch_order(count, 3, 0).tolist()[position:]

    assert stream(all_ranks(count, per_rank, world, position=position)) == left


@settings(deadline=None)
@given(counts, per_ranks)
def test_single_rank_has_whole_batches(count: int, per_rank: int) -> None:
    """One rank's batches are all whole but the last, which may be smaller."""
    sizes = batch_sizes(count, per_rank)

    assert sum(sizes) == count
    assert set(sizes[:-1]) <= {per_rank}
    assert 1 <= sizes[-1] <= per_rank


@pytest.mark.parametrize(
    ("left", "per_rank", "world", "expected"),
    [
        (12, 3, 2, [6, 6]),
        (14, 3, 2, [6, 6, 2]),
        (13, 3, 2, [6, 6, 1]),
        (5, 3, 4, [5]),
        (1, 3, 2, [1]),
        (0, 3, 2, []),
    ],
)
def test_last_batches(left: int, per_rank: int, world: int, expected: list[int]) -> None:
    """The last batch takes what is left, be it too few for all ranks."""
    assert batch_sizes(left, per_rank, world) == expected


def test_keys_carry_the_epoch() -> None:
    """Each key is (epoch, index) in plain integers, and the length is the number of batches."""
    batches = EpochBatches(5, 2, seed=0)
    batches.start_at(7, 2)

    keys = [key for batch in batches for key in batch]
    assert len(batches) == 2
    assert {epoch for epoch, _ in keys} == {7}
    assert {type(index) for _, index in keys} == {int}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("position", "end"), [(0, 7), (4, 7), (0, 1), (7, 7), (0, 10)])
def test_an_epoch_that_ends_early(world: int, position: int, end: int) -> None:
    """Its samples are those that a whole epoch has at these positions, each once over all ranks."""
    samplers = [EpochBatches(10, 2, 3, rank, world) for rank in range(world)]
    for each in samplers:
        each.start_at(5, position, end)
    found = [index for batches in zip(*samplers, strict=True) for batch in batches for _, index in batch]

    assert found == epoch_order(10, 3, 5)[position:end].tolist()
    assert {sum(each.sizes()) for each in samplers} == {end - position}


def test_the_next_epoch_is_whole_again() -> None:
    """An end is that of one epoch."""
    batches = EpochBatches(5, 2, seed=0)
    batches.start_at(0, 0, 3)
    batches.start_at(1)

    assert batches.sizes() == [2, 2, 1]


def test_fewer_samples_than_ranks() -> None:
    """Ranks without a single sample are refused with what to type."""
    with pytest.raises(DataError, match="2 training images for 3 GPUs") as caught:
        EpochBatches(2, 4, 0, 0, world=3)

    assert "--gpus 2" in caught.value.hint
