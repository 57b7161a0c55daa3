"""The phases of a run from its settings. Does not import torch."""

from __future__ import annotations

from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.stages import Phase, Stage, plan_phases


def build_phases(config: Config) -> list[Phase]:
    """Plan the run's stages and unfreezing steps."""
    train = config.train
    stage1_end = 0 if train.skip_stage1 else train.stage1_epochs
    stage1 = Stage(1, 0, stage1_end, train.batch_size, train.lr, warmup_epochs=0)
    stage2 = Stage(
        2, train.stage1_epochs, train.epochs, config.stage2_batch_size, config.stage2_rate, train.warmup_epochs
    )
    return plan_phases(stage1, stage2, progressive_unfreeze=train.progressive_unfreeze)
