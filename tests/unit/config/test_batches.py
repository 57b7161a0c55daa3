from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from camoxpert_cli.config.batches import batch_flags, batches_within, own_batches
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import Config


def config(first: int, second: int, steps: int = 1, gpus: int = 1) -> Config:
    flags = {"batch_size": first, "stage2_batch_size": second, "accumulation_steps": steps}
    return resolve(None, {"run.gpus": gpus, **{f"train.{name}": value for name, value in flags.items()}}).config


@pytest.mark.parametrize(
    ("before", "most", "expected"),
    [
        ((16, 12, 1, 2), (16, 12), (16, 12, 1)),
        ((16, 12, 1, 2), (15, 12), (8, 6, 2)),
        ((16, 12, 1, 2), (16, 7), (8, 6, 2)),
        ((16, 12, 2, 2), (32, 24), (32, 24, 1)),
        # 24 images are no whole number of batches in 16 steps of 2: 6 steps make 24 of 24, and 36 of 32.
        ((16, 12, 1, 2), (3, 2), (3, 2, 6)),
        ((1, 1, 1, 1), (1, 1), (1, 1, 1)),
    ],
)
def test_batches_within(before: tuple[int, ...], most: tuple[int, int], expected: tuple[int, int, int]) -> None:
    """The largest that keep the images of a step; where none do, those that come nearest."""
    found = batches_within(config(*before), most)

    assert (*own_batches(found), found.train.accumulation_steps) == expected


def off(made: tuple[int, int], wanted: tuple[int, int]) -> float:
    return max(abs(math.log(each / images)) for each, images in zip(made, wanted, strict=True))


@settings(max_examples=40)
@given(
    first=st.integers(1, 9),
    second=st.integers(1, 9),
    steps=st.integers(1, 2),
    gpus=st.integers(1, 3),
    before_on=st.integers(1, 3),
    most=st.tuples(st.integers(1, 7), st.integers(1, 7)),
)
@example(first=2, second=2, steps=2, gpus=3, before_on=2, most=(2, 2))  # 8 images: 9 in three batches, and not 6 in one
def test_no_other_batches_come_nearer(
    first: int, second: int, steps: int, gpus: int, before_on: int, most: tuple[int, int]
) -> None:
    """Of all batches within the bounds, tried one by one, none makes steps nearer to those before.

    Also not on another number of GPUs than before, by which the images of a step may not divide.
    """
    wanted = config(first, second, steps, before_on).global_batches
    after = batches_within(config(first, second, steps, gpus), most, wanted)
    sizes = itertools.product(range(1, most[0] + 1), range(1, most[1] + 1), range(1, 55))
    best = min(off((a * count * gpus, b * count * gpus), wanted) for a, b, count in sizes)

    assert own_batches(after)[0] <= most[0]
    assert own_batches(after)[1] <= most[1]
    assert off(after.global_batches, wanted) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("assigned", [False, True])
def test_flags_make_what_they_say(assigned: bool) -> None:
    """What is said to be the same by hand is the same; nothing is said where nothing differs."""
    before = resolve("kaggle-2xT4", {}).config
    after = resolve("kaggle-2xT4", {"model.gradient_checkpointing": True}).config
    after = batches_within(after, (4, 5))
    flags = batch_flags(before, after, assigned=assigned).split()
    typed: dict[str, Any] = {}
    if assigned:
        typed = dict(text.split("=") for text in flags if text != "--set")
    else:
        names = {"--batch-size": "batch_size", "--stage2-batch-size": "stage2_batch_size"}
        names["--accumulation-steps"] = "accumulation_steps"
        typed = {f"train.{names[flag]}": value for flag, value in zip(flags[::2], flags[1::2], strict=False)}
        assert flags[-1] == "--gradient-checkpointing"
        typed["model.gradient_checkpointing"] = True

    assert resolve("kaggle-2xT4", typed).config == after
    assert batch_flags(before, before, assigned=assigned) == ""
