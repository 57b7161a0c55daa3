"""The training state: the network and everything else a checkpoint stores to resume a run."""

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
    """State that training changes. Without EMA `ema` is None; `optimizer` is None before the first phase."""

    network: CamoXpert
    ema: Ema | None
    scaler: GradScaler
    progress: Progress
    optimizer: AdamW | None = None
    backbone_stages: int | None = None  # in training

    @property
    def scored_network(self) -> CamoXpert:
        """The network that is validated: the one with EMA weights, if there is an EMA."""
        return self.network if self.ema is None else self.ema.network


def set_trained(state: TrainingState, strategy: Strategy, config: Config, backbone_stages: int) -> None:
    """Unfreeze the last `backbone_stages` of the backbone and rebuild optimizer and wrapper accordingly."""
    state.network.set_trainable(backbone_stages, deep_heads=config.model.deep_supervision)
    state.optimizer = build_optimizer(
        state.network,
        weight_decay=config.train.weight_decay,
        backbone_lr_factor=config.train.backbone_lr_factor,
        previous=state.optimizer,
    )
    strategy.wrap()
    state.backbone_stages = backbone_stages
