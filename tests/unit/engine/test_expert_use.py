from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.engine.expert_use import ExpertUse, added, expert_use, format_dead_experts


def test_shares_entropy_and_the_dead() -> None:
    """Of 200 images that chose two of four experts: all of them alike; two only; and one by a single image."""
    use = expert_use([[100, 100, 100, 100], [200, 200, 0, 0], [200, 100, 99, 1]], top_k=2)

    assert use.shares == [[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 0.0, 0.0], [1.0, 0.5, 0.495, 0.005]]
    assert use.entropy[:2] == pytest.approx([1.0, 0.5])
    assert 0.5 < use.entropy[2] < 1.0
    assert use.dead == [[], [2, 3], [3]]


def test_one_percent_is_alive() -> None:
    """Dead is what fewer than one of a hundred images chose."""
    assert expert_use([[100, 1, 99]], top_k=2).dead == [[]]
    assert expert_use([[1000, 9, 991]], top_k=2).dead == [[1]]


def test_without_an_image() -> None:
    """Nothing is said of an epoch that no image was counted in."""
    assert expert_use([], top_k=2) == ([], [], [])
    assert expert_use([[0, 0]], top_k=2) == ([], [], [])


def test_a_single_expert() -> None:
    """All images choose it, and that is as even as can be."""
    assert expert_use([[7]], top_k=1) == ([[1.0]], [1.0], [[]])


@given(st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=1, max_size=4))
def test_added_up(steps: list[list[int]]) -> None:
    """Rows of layers come out of flat numbers, and steps add up to the sums of each place."""
    chosen: list[list[float]] = []
    for step in steps:
        chosen = added(chosen, [float(each) for each in step], experts=3)

    assert [value for layer in chosen for value in layer] == [sum(column) for column in zip(*steps, strict=True)]
    assert [len(layer) for layer in chosen] == [3, 3]


def test_the_dead_in_words() -> None:
    """Layers and experts are counted from 1, and layers whose experts all live are left out."""
    use = expert_use([[100, 100, 100, 100], [200, 200, 0, 0], [200, 100, 99, 1]], top_k=2)

    assert format_dead_experts(use) == "3 of 12 experts (layer 2: 3, 4; layer 3: 4) were each"
    alone = ExpertUse(use.shares, use.entropy, [[], [2], []])
    assert format_dead_experts(alone) == "1 of 12 experts (layer 2: 3) was"
