from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from camoxpert_cli.data.sampling import (
    EpochBatches,
    Negatives,
    batch_sizes,
    epoch_keys,
    epoch_order,
    negatives_per_epoch,
    ranks_with_samples,
)
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


negatives = st.builds(Negatives, st.integers(1, 30), st.integers(0, 60))


def mixed(
    count: int, mixed_in: Negatives, per_rank: int, world: int, epoch: int = 0, position: int = 0
) -> list[list[list[tuple[int, int]]]]:
    """The batches of each rank, with images without an object."""
    samplers = [EpochBatches(count, per_rank, 3, rank, world, mixed_in) for rank in range(world)]
    for sampler in samplers:
        sampler.start_at(epoch, position)
    return [list(sampler) for sampler in samplers]


@settings(deadline=None)
@given(counts, negatives, st.integers(0, 50))
def test_an_epoch_with_negatives(count: int, mixed_in: Negatives, epoch: int) -> None:
    """Images with an object come once each, in their usual order; the others are as many as was said."""
    keys = epoch_keys(count, 3, epoch, mixed_in)
    with_object = keys[keys[:, 1] < count]

    assert with_object.tolist() == [[epoch, index] for index in epoch_order(count, 3, epoch).tolist()]
    assert len(keys) == count + mixed_in.per_epoch
    assert keys[:, 1].max() < count + mixed_in.available


@settings(deadline=None)
@given(counts, negatives, st.integers(1, 40), st.data())
def test_each_batch_has_the_share(count: int, mixed_in: Negatives, size: int, data: st.DataObject) -> None:
    """Any consecutive samples contain the share of images without an object, rounded down or up."""
    keys = epoch_keys(count, 3, 0, mixed_in)
    assume(size <= len(keys))
    start = data.draw(st.integers(0, len(keys) - size))
    found = int((keys[start : start + size, 1] >= count).sum())

    assert abs(found - size * mixed_in.per_epoch / len(keys)) < 1


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 30), st.integers(1, 6))
def test_negatives_take_turns(count: int, available: int, per_epoch: int, epochs: int) -> None:
    """Over the epochs, each is used once before any is used again, and no key, so no augmentation, comes twice."""
    keys = [
        (int(turn), int(index) - count)
        for epoch in range(epochs)
        for turn, index in epoch_keys(count, 3, epoch, Negatives(available, per_epoch))
        if index >= count
    ]
    passes = [sorted(index for turn, index in keys[at : at + available]) for at in range(0, len(keys), available)]

    assert all(each == list(range(available)) for each in passes[:-1])
    assert len(set(passes[-1])) == len(passes[-1])
    assert len(set(keys)) == len(keys) == epochs * per_epoch


@settings(deadline=None)
@given(counts, negatives, per_ranks, worlds)
def test_ranks_with_negatives(count: int, mixed_in: Negatives, per_rank: int, world: int) -> None:
    """Put together, the ranks' batches are those of a single rank, for any number of ranks."""
    assume(count >= world)
    batches = zip(*mixed(count, mixed_in, per_rank, world, epoch=2), strict=True)

    together = [[key for share in batch for key in share] for batch in batches]
    assert together == mixed(count, mixed_in, per_rank * world, 1, epoch=2)[0]
    assert [key for batch in together for key in batch] == [*map(tuple, epoch_keys(count, 3, 2, mixed_in).tolist())]


@settings(deadline=None)
@given(counts, negatives, per_ranks, worlds, st.data())
def test_cut_with_negatives(count: int, mixed_in: Negatives, per_rank: int, world: int, data: st.DataObject) -> None:
    """From any position, with any number of ranks, the rest of the epoch comes, each sample once."""
    assume(count >= world)
    keys = [*map(tuple, epoch_keys(count, 3, 0, mixed_in).tolist())]
    position = data.draw(st.integers(0, len(keys)))
    rest = zip(*mixed(count, mixed_in, per_rank, world, position=position), strict=True)

    assert [key for batch in rest for share in batch for key in share] == keys[position:]


def test_order_with_negatives_is_pinned() -> None:
    """It never changes either; images 4 to 6 have no object, and the fifth pass over them begins in this epoch."""
    keys = epoch_keys(4, 42, 3, Negatives(3, 4)).tolist()

    assert keys == [[3, 1], [4, 4], [3, 2], [4, 5], [3, 3], [4, 6], [3, 0], [5, 6]]


@pytest.mark.parametrize(
    ("available", "share", "expected"),
    [
        (0, 0.5, 0),
        (5, None, 5),
        (10, None, 10),
        (999, None, 10),  # a fifth of 50
        (5, 0.5, 40),
        (999, 0.5, 40),
        (999, 0.0, 0),
        (3, 0.9, 360),
        (3, 0.01, 0),
    ],
)
def test_negatives_per_epoch(available: int, share: float | None, expected: int) -> None:
    """Of 40 images with an object, a share asked for is kept to; otherwise all are used, up to a fifth."""
    assert negatives_per_epoch(available, 40, share, 0.2) == expected
