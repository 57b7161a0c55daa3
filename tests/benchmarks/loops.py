"""Endless training loops over one batch in memory: camox's own, and what anyone would write around the same parts."""

from __future__ import annotations

import itertools
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from camoxpert_cli.config.resolve import Resolved, resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.engine.build import RunData, build_network
from camoxpert_cli.engine.optimizer import build_optimizer, set_learning_rate
from camoxpert_cli.engine.run import CLIP_NORM, Run, assemble
from camoxpert_cli.engine.stages import WHOLE_BACKBONE
from camoxpert_cli.engine.state import set_trained
from camoxpert_cli.engine.step import TrainingStep, combine
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.engine.training_steps import training_steps
from camoxpert_cli.parallel.device import place
from camoxpert_cli.parallel.precision import build_scaler
from camoxpert_cli.parallel.world import World
from camoxpert_cli.run_folder import RunFolder

RATE = 1e-6  # so low that the routing stays what it was


def arguments(*, img_size: int, pairs: int) -> ArgumentParser:
    """What all measurements of training steps can be asked for, with these defaults."""
    parser = ArgumentParser()
    parser.add_argument("--backbone", default="edgenext_base")
    parser.add_argument("--img-size", type=int, default=img_size)
    parser.add_argument("--num-experts", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=pairs)
    return parser


def format_arguments(asked: Namespace) -> str:
    return f"{asked.backbone}, {asked.num_experts} experts, {asked.img_size} px, batch {asked.batch_size}"


def settings(
    asked: Namespace, *, processes: int = 1, ema: bool = False, device: str = "cpu", precision: str = "auto"
) -> Resolved:
    """Of a run that begins with the whole backbone unfrozen, at one rate."""
    flags: dict[str, object] = {
        "model.backbone": asked.backbone,
        "model.num_experts": asked.num_experts,
        "model.pretrained": False,
        "data.img_size": asked.img_size,
        "train.stage2_batch_size": asked.batch_size,
        "train.stage2_lr": RATE,
        "train.use_ema": ema,
        "train.skip_stage1": True,
        "train.scheduler": "none",
        "train.precision": precision,
        "run.device": device,
        "run.gpus": processes,
    }
    return resolve(None, {key: value if isinstance(value, bool) else str(value) for key, value in flags.items()})


def noise(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Images and masks as the loader gives them: uint8, the images channels last."""
    images = torch.randint(256, (count, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    return images, (torch.rand(count, 1, side, side) > 0.5).to(torch.uint8)


def camox_run(config: Config, world: World, folder: Path) -> Run:
    """A run that is ready for its first step; it reads no image and writes nothing."""
    network = build_network(config.model, config.train.seed, weights_follow=True)
    data = RunData((), [Pair("", Path(), Path())] * 10**6, [], {}, generated=True)
    placement = place(config.run, world.size)
    run = assemble(config, RunFolder(folder, writes=False), data, network, placement, world, Deadline())
    set_trained(run.state, run.strategy, run.config, WHOLE_BACKBONE)
    run.state.network.train()
    return run


def step_of(run: Run) -> TrainingStep:
    """Network and loss of a run, as one module."""
    assert isinstance(run.strategy.step, TrainingStep)
    return run.strategy.step


def camox_steps(run: Run, images: Tensor, masks: Tensor) -> Iterator[object]:
    """The engine's own loop."""
    stage = run.phases[0].stage
    return training_steps(run, stage, stage.first, itertools.repeat((len(images) * run.world.size, (images, masks))))


def bare_steps(run: Run, images: Tensor, masks: Tensor) -> Iterator[object]:
    """The network, losses and optimizer of a run that has not begun, and nothing around them that is not torch's."""
    network, device = deepcopy(run.state.network), run.device
    step: nn.Module = TrainingStep(network, run.config.model.deep_supervision, run.dtype).to(device)
    if run.world.size > 1:
        step = DistributedDataParallel(step, find_unused_parameters=True)
    optimizer = build_optimizer(network, weight_decay=run.config.train.weight_decay, backbone_lr_factor=1.0)
    set_learning_rate(optimizer, RATE)

    def loss() -> Tensor:
        # One rank's loss of its own images, as DistributedDataParallel averages them.
        output = step(images.to(device, non_blocking=True), masks.to(device, non_blocking=True))
        return combine(output, network.top_k, len(images), World()).total

    return steps_on(loss, optimizer, build_scaler(run.dtype, device))


def steps_on(
    loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> Iterator[object]:
    """A step on `loss` at a time: backward pass, clipping, update. Yields the loss."""
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    while True:
        value = loss()
        torch.autograd.backward(scaler.scale(value))
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        yield value.item()


def seconds_of(loop: Iterator[object], steps: int, world: World | None = None) -> float:
    """How long so many steps take, on all ranks and to the end of what the device was given."""
    wait_for_all(world)
    started = time.perf_counter()
    for _ in range(steps):
        next(loop)
    wait_for_all(world)
    return time.perf_counter() - started


def wait_for_all(world: World | None) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if world is not None:
        world.all_gather(None)


def interleaved(
    loops: Sequence[Iterator[object]], rounds: int, steps: int, world: World | None = None
) -> list[tuple[float, ...]]:
    """Seconds for `steps` steps of each loop, round by round, after a step of each that is not counted."""
    for loop in loops:
        seconds_of(loop, 1, world)
    found = []
    for number in range(rounds):
        # Which one goes first changes: a machine that warms up or slows down favours none.
        order = [(number + at) % len(loops) for at in range(len(loops))]
        seconds = {at: seconds_of(loops[at], steps, world) for at in order}
        found.append(tuple(seconds[at] for at in range(len(loops))))
    return found
