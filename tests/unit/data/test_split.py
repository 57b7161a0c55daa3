from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.data.cod10k import super_class
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.split import hold_out
from camoxpert_cli.errors import DataError


def pairs_named(names: list[str]) -> list[Pair]:
    return [Pair(name, Path(f"{name}.jpg"), Path(f"{name}.png")) for name in names]


def cod10k(sizes: dict[str, int]) -> list[Pair]:
    names = [f"COD10K-CAM-1-{group}-3-Crab-{index}" for group, size in sizes.items() for index in range(size)]
    return pairs_named(names)


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0.001, 0.9), st.integers(0, 2**32 - 1))
def test_every_pair_lands_on_one_side(count: int, fraction: float, seed: int) -> None:
    """Both sides have a pair, together they are the whole, and the fraction is kept to the nearest image."""
    pairs = pairs_named([f"{index:03d}" for index in range(count)])

    train, held_out = hold_out(pairs, fraction, seed)

    assert sorted(train + held_out, key=lambda pair: pair.name) == pairs
    assert train
    assert held_out
    assert len(held_out) == min(max(1, round(fraction * count)), count - 1)


def test_super_classes_are_held_out_in_proportion() -> None:
    """Each super-class gives its part; what rounding leaves goes to the largest remainders."""
    sizes = {"Aquatic": 51, "Terrestrial": 33, "Flying": 26, "Amphibian": 8, "Other": 2}

    _, held_out = hold_out(cod10k(sizes), 0.1, 0)

    # 12 of 120: 5.1, 3.3, 2.6, 0.8 and 0.2
    assert Counter(super_class(pair.name) for pair in held_out) == {
        "Aquatic": 5,
        "Terrestrial": 3,
        "Flying": 3,
        "Amphibian": 1,
    }


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=5), st.floats(0.01, 0.9))
def test_no_super_class_is_off_by_an_image(sizes: list[int], fraction: float) -> None:
    """No super-class gives a whole image more or less than its exact part of those held out."""
    groups = {f"Group{chr(65 + index)}": size for index, size in enumerate(sizes)}
    pairs = cod10k(groups)
    if len(pairs) < 2:
        return

    _, held_out = hold_out(pairs, fraction, 1)

    counts = Counter(super_class(pair.name) for pair in held_out)
    assert all(abs(counts[group] - len(held_out) * size / len(pairs)) < 1 for group, size in groups.items())


def test_order_of_files_does_not_matter() -> None:
    """The split depends on names and seed, not on the order in which the pairs come."""
    pairs = cod10k({"Aquatic": 30, "Flying": 20}) + pairs_named([f"camourflage_{index:05d}" for index in range(15)])
    shuffled = random.Random(0).sample(pairs, len(pairs))

    assert hold_out(pairs, 0.2, 7) == hold_out(shuffled, 0.2, 7)


def test_seed_matters() -> None:
    """Another seed holds out other images."""
    pairs = pairs_named([f"{index:03d}" for index in range(100)])

    assert hold_out(pairs, 0.1, 0) != hold_out(pairs, 0.1, 1)


def test_split_is_pinned() -> None:
    """The images held out for a seed never change: a run that goes on must not train on them."""
    pairs = pairs_named([f"{index:03d}" for index in range(50)])

    _, held_out = hold_out(pairs, 0.1, 42)

    assert [pair.name for pair in held_out] == ["008", "015", "028", "029", "035"]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pairs(count: int) -> None:
    """One image cannot be both trained on and held out."""
    with pytest.raises(DataError, match=f"{count} training image"):
        hold_out(pairs_named(["a"][:count]), 0.5, 0)
