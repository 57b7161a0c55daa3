"""How much memory a recipe's stages take on a GPU: a few real steps of each, on noise instead of pictures."""

from __future__ import annotations

import gc

import torch

from camoxpert_cli.config.schema import Config
from camoxpert_cli.engine.build import build_network, build_phases
from camoxpert_cli.engine.doctor.readings import StageMemory
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.optimizer import build_optimizer, set_learning_rate
from camoxpert_cli.engine.precision import choose_dtype
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.engine.step import TrainingStep, combine
from camoxpert_cli.engine.world import World
from camoxpert_cli.model.camoxpert import CamoXpert

# The first step makes the optimizer's moments, so only the second holds all there is at once.
_STEPS = 2


def measure_memory(config: Config, device_name: str) -> list[StageMemory]:
    """The peak of each stage with the most of the backbone that it ever trains, at its batch on one device.

    `peak` is what torch's allocator held, in bytes; None where memory ran out, 0 on the CPU, which does not count it.
    Weights are random. Raises ConfigError for a network that cannot be built, DeviceError for a number format that the
    device lacks.
    """
    device = torch.device(device_name)
    most: dict[Stage, int] = {}
    for phase in build_phases(config):
        most[phase.stage] = max(most.get(phase.stage, 0), phase.backbone_stages)
    network = build_network(config.model, config.train.seed, weights_follow=True).to(device)
    ema = Ema(network, config.train.ema_decay) if config.train.use_ema else None
    return [
        StageMemory(stage.number, stage.batch_size, _peak(config, network, ema, device, stage, backbone_stages))
        for stage, backbone_stages in most.items()
    ]


def _peak(
    config: Config, network: CamoXpert, ema: Ema | None, device: torch.device, stage: Stage, backbone_stages: int
) -> int | None:
    network.zero_grad(set_to_none=True)
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        _train(config, network, ema, device, stage, backbone_stages)
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def _train(
    config: Config, network: CamoXpert, ema: Ema | None, device: torch.device, stage: Stage, backbone_stages: int
) -> None:
    network.set_trainable(backbone_stages, deep_heads=config.model.deep_supervision)
    optimizer = build_optimizer(network, weight_decay=0.0, backbone_lr_factor=config.train.backbone_lr_factor)
    set_learning_rate(optimizer, 0.0)  # noise shall teach it nothing
    dtype = choose_dtype(config.train.precision, device)
    step = TrainingStep(network, config.model.deep_supervision, dtype).to(device).train()
    side, batch = config.data.img_size, stage.batch_size
    for _ in range(_STEPS):
        images = torch.randint(256, (batch, side, side, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
        masks = torch.randint(2, (batch, 1, side, side), dtype=torch.uint8, device=device)
        losses = combine(step(images, masks), network.top_k, batch, World())
        torch.autograd.backward(losses.total)
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            ema.update(network)
