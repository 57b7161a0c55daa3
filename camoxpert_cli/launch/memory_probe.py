"""Measure the GPU memory that a config's stages need: a few real steps of each, on noise instead of images.

The limit is found by running out of memory, so this belongs in a separate process: all its memory is certain to be
freed, and a CUDA crash is contained. As a program it prints the largest batch sizes:

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
from camoxpert_cli.engine.build import build_network
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.optimizer import build_optimizer, set_learning_rate
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.engine.step import TrainingStep, combine
from camoxpert_cli.launch.run_probe import answer
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.routing import costliest, only
from camoxpert_cli.parallel.cuda_errors import is_out_of_memory
from camoxpert_cli.parallel.determinism import deterministic
from camoxpert_cli.parallel.precision import choose_dtype
from camoxpert_cli.parallel.world import World

# Trains a stage, with the given number of backbone stages, until it has reached its peak memory.
Steps: TypeAlias = Callable[[Config, CamoXpert, Ema | None, torch.device, Stage, int], None]

# The second step starts with the allocator in the state that the first left.
_STEPS = 2
# Part of a GPU's free memory in which the steps must fit. The rest is for what builds up over hours: fragmentation of
# the allocator, NCCL buffers, validation.
_MARGIN = 0.92


def measure_memory(config: Config, device_name: str, steps: Steps | None = None) -> dict[Stage, int | None]:
    """Measure each stage's peak memory on one device, with all layers that it ever trains and the costliest experts.

    Returns bytes reserved by torch's allocator; None if memory ran out, 0 on the CPU, which does not track it. Weights
    are random. `steps` replaces `two_steps`. Raises ConfigError if the network cannot be built, DeviceError if the
    device does not support the dtype.
    """
    device = torch.device(device_name)
    network, ema = _build(config, device)
    return {
        stage: _peak(config, network, ema, device, stage, backbone_stages, steps or two_steps)
        for stage, backbone_stages in _most_trained(config).items()
    }


def largest_batches(config: Config, device_name: str, limits: Sequence[int], steps: Steps | None = None) -> list[int]:
    """Find the largest batch sizes of stages 1 and 2, up to `limits`, with which two steps fit on one device.

    0 if not even one image fits; the limit for a stage that the settings omit. Part of the memory is kept free.
    `steps` replaces `two_steps`. Raises as `measure_memory` does.
    """
    device = torch.device(device_name)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # With this limit the allocator releases cached memory before it reports that there is none left.
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
    """Return the largest of 1 ... `limit` that `fits`, if all below it do; 0 if none does. Tries the limit first."""
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
    """Each stage with epochs, and the largest number of backbone stages that it trains."""
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
        # Memory depends on the experts selected for the images: hardly more than with the costliest ones.
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
    return costliest(network.train(), images, choose_dtype(config.train.precision, device, of_run=True))


def two_steps(
    config: Config, network: CamoXpert, ema: Ema | None, device: torch.device, stage: Stage, backbone_stages: int
) -> None:
    """Make two steps like those in the middle of a long run; the weights of `network` do not change."""
    network.set_trainable(backbone_stages, deep_heads=config.model.deep_supervision)
    optimizer = build_optimizer(network, weight_decay=0.0, backbone_lr_factor=config.train.backbone_lr_factor)
    set_learning_rate(optimizer, 0.0)  # noise must not change the weights
    dtype = choose_dtype(config.train.precision, device, of_run=True)
    step = TrainingStep(network, config.model.deep_supervision, dtype).to(device).train()
    side, batch = config.data.img_size, stage.batch_size
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # In a long run all experts have been used: the optimizer has moments for each, and the images of a real step, or
    # of the batches accumulated before, have given each a gradient. The few experts used here would omit most of both.
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
            "batches": largest_batches(from_mapping(json.loads(settings), "the config"), device, [*map(int, limits)])
        }
    )
