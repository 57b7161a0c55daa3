"""The training schedule: two stages, and three steps in which stage 2 unfreezes the backbone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

WHOLE_BACKBONE = 4

# What determines how fast a phase trains: the number of its stage, and of the backbone stages in training.
Kind: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """Epochs `first` to `end` (exclusive) that share a batch size and a learning-rate schedule."""

    number: int
    first: int
    end: int
    batch_size: int
    lr: float
    warmup_epochs: int


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `end` (exclusive) of a stage that train the last `backbone_stages` (0 to 4) of the backbone."""

    stage: Stage
    first: int
    end: int
    backbone_stages: int

    @property
    def kind(self) -> Kind:
        """What is trained and how, whatever the number of epochs."""
        return self.stage.number, self.backbone_stages


def plan_phases(stage1: Stage, stage2: Stage, *, progressive_unfreeze: bool) -> list[Phase]:
    """Return the run's phases in order, without those that have no epochs.

    Stage 1 trains everything except the backbone. Stage 2 trains the whole network, or with `progressive_unfreeze` only
    the last backbone stage for a third of the epochs, the last two for the next third, then all.
    """
    steps = [(0, 1), (1, 2), (2, WHOLE_BACKBONE)] if progressive_unfreeze else [(0, WHOLE_BACKBONE)]
    epochs = stage2.end - stage2.first
    starts = [stage2.first + third * epochs // 3 for third, _ in steps] + [stage2.end]
    phases = [Phase(stage1, stage1.first, stage1.end, 0)]
    for (_, backbone_stages), (first, end) in zip(steps, pairwise(starts), strict=True):
        phases.append(Phase(stage2, first, end, backbone_stages))
    return [phase for phase in phases if phase.first < phase.end]


def keep_unfrozen(phases: list[Phase], epoch: int, backbone_stages: int) -> list[Phase]:
    """Adjust the phases of a run in `epoch` that already trains `backbone_stages`.

    A longer run unfreezes later; stages that are already training are not frozen again.
    """
    kept: list[Phase] = []
    for phase in phases:
        if phase.end > epoch:
            phase = replace(phase, backbone_stages=max(phase.backbone_stages, backbone_stages))
        if kept and (kept[-1].stage, kept[-1].backbone_stages) == (phase.stage, phase.backbone_stages):
            kept[-1] = replace(kept[-1], end=phase.end)
        else:
            kept.append(phase)
    return kept
