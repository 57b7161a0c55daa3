"""How long a run will take, from the epochs that it has completed."""

from __future__ import annotations

from typing import Any

import pytest

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.stages import Phase
from camoxpert_cli.status.remaining import Remaining, remaining


def phases(**flags: Any) -> list[Phase]:
    """Three epochs of stage 1, then three of stage 2, which unfreeze a part of the backbone each."""
    chosen = {"train.epochs": 6, "train.stage1_epochs": 3, **{f"train.{name}": flags[name] for name in flags}}
    return build_phases(resolve(None, chosen).config)


def rows(*seconds: float) -> list[dict[str, Any]]:
    return [{"epoch": number, "seconds": each} for number, each in enumerate(seconds, 1)]


PLAIN = phases(progressive_unfreeze=False)


def test_a_stage() -> None:
    """Epochs of the same kind take as long as those before: stage 2 is timed by its own."""
    assert remaining(PLAIN, rows(9, 9, 9, 20), 4, share=0.0, spent=0.0) == Remaining(40, False)
    assert remaining(PLAIN, rows(9, 9, 9, 20), 4, share=0.25, spent=0.0) == Remaining(35, False)
    assert remaining(PLAIN, rows(9, 9, 9, 20), 4, share=None, spent=5.0) == Remaining(35, False)
    assert remaining(PLAIN, rows(9, 9, 9, 20), 4, share=None, spent=50.0) == Remaining(20, False)


def test_a_last_epoch_that_ends_early() -> None:
    """What it does not train takes no time, also while it is going on."""
    assert remaining(PLAIN, rows(9, 9, 9, 20), 4, share=0.0, spent=0.0, unseen=0.25) == Remaining(35, False)
    assert remaining(PLAIN, rows(9, 9, 9, 20, 20), 5, share=0.5, spent=0.0, unseen=0.25) == Remaining(5, False)
    assert remaining(PLAIN, rows(9, 9, 9, 20, 20), 5, share=0.75, spent=0.0, unseen=0.25) == Remaining(0, False)
    assert remaining(PLAIN, rows(9, 9, 9, 20, 20), 5, share=None, spent=19.0, unseen=0.25) == Remaining(0, False)


@pytest.mark.parametrize(("done", "seconds"), [(1, 50), (2, 40), (3, 30), (4, 20), (5, 10)])
def test_a_lower_bound(done: int, seconds: float) -> None:
    """While later epochs train more layers than those timed; of the last kind, one epoch has to be timed."""
    first = remaining(phases(), rows(*[10] * done), done, share=0.0, spent=0.0)

    assert first == Remaining(seconds, True)
    assert remaining(phases(), rows(*[10] * 5, 12), 6, share=0.0, spent=0.0) == Remaining(0.0, False)
    assert remaining(PLAIN, rows(10, 10, 10), 3, share=0.0, spent=0.0) == Remaining(30, True)


def test_recent_epochs() -> None:
    """The first epoch fills caches, and another machine may have made the earlier ones."""
    long = phases(epochs=20, stage1_epochs=0, progressive_unfreeze=False)
    slow = rows(*[90] * 5, *[10] * 3)

    assert remaining(long, rows(90, 10, 10), 3, share=0.0, spent=0.0) == Remaining(170, False)
    assert remaining(long, slow, 8, share=0.0, spent=0.0) == Remaining(120, False)
    # Epochs that are to be repeated have been timed, but those of later phases train more layers.
    assert remaining(PLAIN, rows(10, 10, 10, 99, 99, 99), 1, share=0.0, spent=0.0) == Remaining(50, True)
    assert remaining(PLAIN, rows(10, 10, 10), 0, share=0.0, spent=0.0) == Remaining(60, True)


def test_nothing_timed() -> None:
    """Before the first epoch is complete nobody knows."""
    assert remaining(PLAIN, [], 0, share=0.5, spent=3.0) is None
    assert remaining(PLAIN, [], 6, share=0.0, spent=0.0) == Remaining(0.0, False)
