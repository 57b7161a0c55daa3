"""How much memory a recipe's stages take on a GPU: a few real steps of each, on noise instead of images.

Where memory runs out is found by running out of it, so this belongs into a process of its own: what it took is free
again for certain, and what CUDA may die of stays there. This one answers with the largest batches:

    python -m camoxpert_cli.launch.memory_probe SETTINGS DEVICE STAGE1 STAGE2
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from camoxpert_cli.config.resolve import from_mapping
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.noise import noise
from camoxpert_cli.engine.build import build_network, build_phases
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.optimizer import build_optimizer, set_learning_rate
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.engine.step import TrainingStep, combine
from camoxpert_cli.launch.run_probe import answer
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.routing import costliest, only
from camoxpert_cli.parallel.cuda_errors import is_out_of_memory
from camoxpert_cli.parallel.determinism import deterministic
from camoxpert_cli.parallel.precision import choose_dtype
from camoxpert_cli.parallel.world import World

# Trains a stage, with so many stages of the backbone, until it has taken the most memory that it ever does.
Steps: TypeAlias = Callable[[Config, CamoXpert, Ema | None, torch.device, Stage, int], None]

# The second finds the allocator's memory as the first left it.
_STEPS = 2
# Part of a GPU's free memory that the steps must do with. The rest is for what comes with hours: an allocator's gaps,
# the buffers of NCCL, validation.
_MARGIN = 0.92


def measure_memory(config: Config, device_name: str, steps: Steps | None = None) -> dict[Stage, int | None]:
    """The peak of each stage with the most that it ever trains and the costliest experts, at its batch on one device.

    It is what torch's allocator held, in bytes; None where memory ran out, 0 on the CPU, which does not count it.
    Weights are random. `steps` takes the place of `two_steps`. Raises ConfigError for a network that cannot be built,
    DeviceError for a dtype that the device lacks.
    """
    device = torch.device(device_name)
    network, ema = _build(config, device)
    return {
        stage: _peak(config, network, ema, device, stage, backbone_stages, steps or two_steps)
        for stage, backbone_stages in _most_trained(config).items()
    }


def largest_batches(config: Config, device_name: str, limits: Sequence[int], steps: Steps | None = None) -> list[int]:
    """The most images at a time, up to `limits`, that two steps of stages 1 and 2 have room for on one device.

    0 where not even one has; the limit for a stage that the settings leave out. Part of the memory is kept free.
    `steps` takes the place of `two_steps`. Raises as `measure_memory` does.
    """
    device = torch.device(device_name)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # The allocator then gives back what it only keeps in reserve before it says that there is no more.
        torch.cuda.set_per_process_memory_fraction(_MARGIN * free / total, device)
    try:
        network, ema = _build(config, device)
    except RuntimeError as error:
        if is_out_of_memory(error):
            return [0, 0]
        raise
    found = list(limits)
    for stage, backbone_stages in _most_trained(config).items():

        def fits(batch: int, stage: Stage = stage, backbone_stages: int = backbone_stages) -> bool:
            tried = replace(stage, batch_size=batch)
            return _peak(config, network, ema, device, tried, backbone_stages, steps or two_steps) is not None

        found[stage.number - 1] = largest_that(fits, limits[stage.number - 1])
    return found


def largest_that(fits: Callable[[int], bool], limit: int) -> int:
    """The largest of 1 ... `limit` that `fits`, where all below it do; 0 where none does. The limit is tried first."""
    if fits(limit):
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _build(config: Config, device: torch.device) -> tuple[CamoXpert, Ema | None]:
    network = build_network(config.model, config.train.seed, weights_follow=True).to(device)
    return network, Ema(network, config.train.ema_decay) if config.train.use_ema else None


def _most_trained(config: Config) -> dict[Stage, int]:
    """Each stage that trains, and the most stages of the backbone that it ever does."""
    most: dict[Stage, int] = {}
    for phase in build_phases(config):
        most[phase.stage] = max(most.get(phase.stage, 0), phase.backbone_stages)
    return most


def _peak(
    config: Config,
    network: CamoXpert,
    ema: Ema | None,
    device: torch.device,
    stage: Stage,
    backbone_stages: int,
    steps: Steps,
) -> int | None:
    network.zero_grad(set_to_none=True)
    try:
        # What a batch takes depends on the experts that its images choose: hardly more than with the costliest.
        with deterministic(config.train.deterministic), only(network, _costliest(config, network, device, stage)):
            if device.type == "cuda":
                gc.collect()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            steps(config, network, ema, device, stage, backbone_stages)
    except RuntimeError as error:
        if is_out_of_memory(error):
            return None
        raise
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def _costliest(config: Config, network: CamoXpert, device: torch.device, stage: Stage) -> list[list[int]]:
    side = config.data.img_size
    images = torch.zeros(stage.batch_size, 3, side, side, device=device)
    return costliest(network.train(), images, choose_dtype(config.train.precision, device))


def two_steps(
    config: Config, network: CamoXpert, ema: Ema | None, device: torch.device, stage: Stage, backbone_stages: int
) -> None:
    """As training makes them in the middle of a long run; `network` learns nothing."""
    network.set_trainable(backbone_stages, deep_heads=config.model.deep_supervision)
    optimizer = build_optimizer(network, weight_decay=0.0, backbone_lr_factor=config.train.backbone_lr_factor)
    set_learning_rate(optimizer, 0.0)  # noise shall teach it nothing
    dtype = choose_dtype(config.train.precision, device)
    step = TrainingStep(network, config.model.deep_supervision, dtype).to(device).train()
    side, batch = config.data.img_size, stage.batch_size
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # A long run has used all experts: the optimizer has moments of each, and the images of a real step, or of those
    # accumulated before, have given each a gradient. The few experts used here would leave most of both out.
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for _ in range(_STEPS):
        losses = combine(step(*noise(batch, side, device)), network.top_k, batch, World())
        torch.autograd.backward(losses.total)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        if ema is not None:
            ema.update(network)


if __name__ == "__main__":
    settings, device, *limits = sys.argv[1:]
    answer(
        lambda: {
            "batches": largest_batches(from_mapping(json.loads(settings), "the recipe"), device, [*map(int, limits)])
        }
    )
