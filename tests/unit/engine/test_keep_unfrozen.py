"""A resumed run may have another plan than the one it began with; its backbone stays as far unfrozen as it was."""

from __future__ import annotations

from camoxpert_cli.engine.stages import Phase, Stage, keep_unfrozen, plan_phases

STAGE1 = Stage(1, 0, 2, batch_size=8, lr=1e-3, warmup_epochs=0)


def plan(epochs: int) -> list[Phase]:
    """Two epochs of stage 1, then stage 2 in three steps."""
    return plan_phases(STAGE1, Stage(2, 2, epochs, 4, 1e-4, warmup_epochs=0), progressive_unfreeze=True)


def rows(phases: list[Phase]) -> list[tuple[int, int, int]]:
    return [(phase.first, phase.end, phase.backbone_stages) for phase in phases]


def test_a_longer_plan_freezes_nothing_again() -> None:
    """Of 8 epochs the last two train the whole backbone; of 17 it does so from the sixth on, where the run stands."""
    assert rows(plan(17)) == [(0, 2, 0), (2, 7, 1), (7, 12, 2), (12, 17, 4)]
    assert rows(keep_unfrozen(plan(17), 6, 4)) == [(0, 2, 0), (2, 17, 4)]
    assert rows(keep_unfrozen(plan(17), 6, 2)) == [(0, 2, 0), (2, 12, 2), (12, 17, 4)]


def test_what_lies_behind_is_left_alone() -> None:
    """A phase whose last epoch is complete is what it was: the one that begins there is the first that may change."""
    assert rows(keep_unfrozen(plan(17), 7, 4)) == [(0, 2, 0), (2, 7, 1), (7, 17, 4)]


def test_the_plan_itself_stays() -> None:
    """Where nothing more is unfrozen than is planned, the plan is the same, and phases of two stages stay two."""
    assert keep_unfrozen(plan(17), 6, 1) == plan(17)
    assert keep_unfrozen(plan(17), 1, 0) == plan(17)
    assert rows(keep_unfrozen(plan(17), 1, 4)) == [(0, 2, 4), (2, 17, 4)]
