"""What training changes: the network and all that a checkpoint holds beside it, so that a run can go on from there."""

from __future__ import annotations

from dataclasses import dataclass

from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW

from camoxpert_cli.checkpoints.format import Progress
from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.optimizer import build_optimizer
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.strategy import Strategy


@dataclass
class TrainingState:
    """`ema` is None where no average is kept. Before the first phase nothing is trained, and there is no optimizer."""

    network: CamoXpert
    ema: Ema | None
    scaler: GradScaler
    progress: Progress
    optimizer: AdamW | None = None
    backbone_stages: int | None = None  # in training

    @property
    def scored_network(self) -> CamoXpert:
        """The network that is validated: the average where there is one."""
        return self.network if self.ema is None else self.ema.network


def set_trained(state: TrainingState, strategy: Strategy, config: Config, backbone_stages: int) -> None:
    """Train the last `backbone_stages` of the backbone; make wrapper and optimizer anew over them, as one act."""
    state.network.set_trainable(backbone_stages, deep_heads=config.model.deep_supervision)
    state.optimizer = build_optimizer(
        state.network,
        weight_decay=config.train.weight_decay,
        backbone_lr_factor=config.train.backbone_lr_factor,
        previous=state.optimizer,
    )
    strategy.wrap()
    state.backbone_stages = backbone_stages
