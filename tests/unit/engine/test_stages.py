from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.stages import WHOLE_BACKBONE, Phase, Stage, keep_unfrozen, plan_phases
from tests.helpers.tiny_data import tiny_run


def plan(epochs: int, stage1_epochs: int, progressive: bool) -> list[Phase]:
    stage1 = Stage(1, 0, stage1_epochs, batch_size=8, lr=1e-3, warmup_epochs=0)
    stage2 = Stage(2, stage1_epochs, epochs, batch_size=4, lr=1e-4, warmup_epochs=2)
    return plan_phases(stage1, stage2, progressive_unfreeze=progressive)


def rows(phases: list[Phase]) -> list[tuple[int, int, int, int]]:
    return [(phase.stage.number, phase.first, phase.end, phase.backbone_stages) for phase in phases]


lengths = st.integers(1, 300).flatmap(lambda epochs: st.tuples(st.just(epochs), st.integers(0, epochs)))


@given(lengths, st.booleans())
def test_phases_cover_the_epochs(length: tuple[int, int], progressive: bool) -> None:
    """Every epoch belongs to exactly one phase, in order, and no phase is empty or leaves its stage."""
    phases = plan(*length, progressive)

    assert [epoch for phase in phases for epoch in range(phase.first, phase.end)] == list(range(length[0]))
    assert all(phase.stage.first <= phase.first < phase.end <= phase.stage.end for phase in phases)


@given(lengths, st.booleans())
def test_backbone_only_ever_thaws(length: tuple[int, int], progressive: bool) -> None:
    """Stage 1 freezes the backbone, each later phase trains more of it, and the last epoch of stage 2 all of it."""
    phases = plan(*length, progressive)

    assert all((phase.backbone_stages == 0) == (phase.stage.number == 1) for phase in phases)
    assert all(before.backbone_stages < after.backbone_stages for before, after in pairwise(phases))
    assert phases[-1].backbone_stages == (WHOLE_BACKBONE if length[1] < length[0] else 0)


@given(lengths)
def test_thirds(length: tuple[int, int]) -> None:
    """The three steps of stage 2 take the same number of epochs, give or take one."""
    phases = [phase for phase in plan(*length, progressive=True) if phase.stage.number == 2]
    epochs = [phase.end - phase.first for phase in phases]

    assert length[0] - length[1] < 3 or len(epochs) == 3
    assert not epochs or max(epochs) - min(epochs) <= 1


@pytest.mark.parametrize(
    ("epochs", "stage1_epochs", "progressive", "expected"),
    [
        (140, 30, True, [(1, 0, 30, 0), (2, 30, 66, 1), (2, 66, 103, 2), (2, 103, 140, 4)]),
        (140, 30, False, [(1, 0, 30, 0), (2, 30, 140, 4)]),
        (9, 0, True, [(2, 0, 3, 1), (2, 3, 6, 2), (2, 6, 9, 4)]),
        (2, 0, True, [(2, 0, 1, 2), (2, 1, 2, 4)]),
        (4, 3, True, [(1, 0, 3, 0), (2, 3, 4, 4)]),
        (5, 5, True, [(1, 0, 5, 0)]),
    ],
)
def test_plans(epochs: int, stage1_epochs: int, progressive: bool, expected: list[tuple[int, int, int, int]]) -> None:
    """The last stage of the backbone trains from stage 2 on, the last two after a third of it, all after two."""
    assert rows(plan(epochs, stage1_epochs, progressive)) == expected


def test_skip_stage1() -> None:
    """Without stage 1 the run begins with the first epoch of stage 2, which keeps its number."""
    flags = {"train.epochs": 12, "train.stage1_epochs": 6, "train.skip_stage1": True}

    assert rows(build_phases(resolve(None, flags).config)) == [(2, 6, 8, 1), (2, 8, 10, 2), (2, 10, 12, 4)]


def test_settings_reach_the_stages(tmp_path: Path) -> None:
    """Each stage has its own batch, rate and warm-up, for as many epochs as the settings say."""
    settings = {"batch_size": 9, "lr": 0.1, "stage2_lr": 0.01, "warmup_epochs": 2, "epochs": 7, "stage1_epochs": 3}
    config = tiny_run(tmp_path, tmp_path, stage2_batch_size=5, **settings).config
    stages = list(dict.fromkeys(phase.stage for phase in build_phases(config)))

    assert stages == [Stage(1, 0, 3, 9, 0.1, warmup_epochs=0), Stage(2, 3, 7, 5, 0.01, warmup_epochs=2)]


def test_a_longer_plan_freezes_nothing_again() -> None:
    """Extended from 5 to 10 epochs, in its epoch 3 with two stages in training, a run goes on with those two.

    The longer plan would train one of them until epoch 4; it trains all when it says so, and not before.
    """
    longer = plan(10, 1, progressive=True)

    assert rows(longer) == [(1, 0, 1, 0), (2, 1, 4, 1), (2, 4, 7, 2), (2, 7, 10, 4)]
    assert rows(keep_unfrozen(longer, epoch=3, backbone_stages=2)) == [(1, 0, 1, 0), (2, 1, 7, 2), (2, 7, 10, 4)]


@settings(max_examples=40)
@given(lengths, st.booleans(), st.data())
def test_what_trains_already_goes_on_training(length: tuple[int, int], progressive: bool, data: st.DataObject) -> None:
    """From where a run stands each epoch trains what trains now, and what was planned for it."""
    phases = plan(*length, progressive)
    epoch, stages = data.draw(st.integers(0, length[0] - 1)), data.draw(st.sampled_from([0, 1, 2, 4]))
    trained = {each: phase.backbone_stages for phase in phases for each in range(phase.first, phase.end)}
    kept = keep_unfrozen(phases, epoch, stages)
    now = {each: phase.backbone_stages for phase in kept for each in range(phase.first, phase.end)}

    assert {each: now[each] for each in range(epoch, length[0])} == {
        each: max(trained[each], stages) for each in range(epoch, length[0])
    }
    assert list(now) == list(trained)
