"""When a run is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camoxpert_cli.config.schema import Config, TrainConfig
from camoxpert_cli.engine.ending import describe_trained, early_stop, epochs_before_patience, is_trained
from camoxpert_cli.engine.train import train_epochs
from camoxpert_cli.parallel.world import World
from tests.helpers.thread_ranks import in_threads


def config(**settings: Any) -> Config:
    """Twenty epochs, of which six belong to stage 1; the whole backbone trains from the start of stage 2."""
    chosen = {"epochs": 20, "stage1_epochs": 6, "progressive_unfreeze": False, **settings}
    return Config(train=TrainConfig(**chosen))


@pytest.mark.parametrize(
    ("epoch", "best", "trained"),
    [
        (10, 7, True),
        (9, 7, False),
        (10, 8, False),
        # Of the epochs that follow the best one, those of stage 1 do not count.
        (6, 1, False),
        (8, 1, False),
        (9, 1, True),
        # Without a best epoch there is nothing to score.
        (10, None, False),
        (20, 20, True),
        (20, None, True),
        # The weights that a run started with are as good as an epoch.
        (8, 0, False),
        (9, 0, True),
    ],
)
def test_patience(epoch: int, best: int | None, trained: bool) -> None:
    """A run ends once three epochs in a row of stage 2 are no better than the best, or after its last one."""
    assert is_trained(config(patience=3), epoch, best) is trained
    assert is_trained(config(), epoch, best) is (epoch == 20)


@pytest.mark.parametrize(
    ("settings", "before"),
    [
        ({}, 6),
        ({"warmup_epochs": 4}, 10),
        ({"progressive_unfreeze": True}, 15),  # its three steps begin after epochs 6, 10 and 15
        ({"progressive_unfreeze": True, "warmup_epochs": 10}, 16),
        ({"stage1_epochs": 20}, 0),
        ({"skip_stage1": True}, 6),
        ({"stage1_epochs": 0}, 0),
    ],
)
def test_what_comes_before(settings: dict[str, Any], before: int) -> None:
    """Patience counts epochs only once all trains that will ever train, at the full learning rate."""
    assert epochs_before_patience(config(**settings)) == before
    assert not is_trained(config(patience=2, **settings), max(before, 1) + 1, 1)
    assert is_trained(config(patience=2, **settings), max(before, 1) + 2, 1)


@given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 20))
def test_a_larger_patience_goes_on(patience: int, epoch: int, best: int) -> None:
    """It never ends a run that a smaller one continues; the last epoch ends all of them."""
    ends, longer = (is_trained(config(patience=each), epoch, min(best, epoch)) for each in (patience, patience + 1))

    assert ends or not longer
    assert not ends or epoch - min(best, epoch) >= patience or epoch == 20


def test_why() -> None:
    """The reason names both numbers; a run that had all its epochs needs none."""
    early, whole = config(patience=1), config(patience=2)

    assert early_stop(early, 9, 8) == "no better validation IoU for 1 epoch, best in epoch 8"
    assert describe_trained(early, 9, 8) == (
        "9 of 20 epochs: no better validation IoU for 1 epoch, best in epoch 8; a larger --patience continues it"
    )
    assert early_stop(early, 9, 0) == (
        "no better validation IoU for 3 epochs, the weights that the run started with are the best"
    )
    assert early_stop(whole, 20, 3) is None
    assert describe_trained(whole, 20, 3) == "20 epochs"


def test_all_ranks_end_together() -> None:
    """The first one decides: it alone may know already that the best weights could not be written."""

    def run(world: World) -> Any:
        made: Any = SimpleNamespace(
            **{"world": world, "state": SimpleNamespace(progress=None), "next_phase": "one" if world.rank else None},
            saver=SimpleNamespace(settle=lambda: None),
        )
        return train_epochs(made)

    assert in_threads(2, run) == [None, None]
