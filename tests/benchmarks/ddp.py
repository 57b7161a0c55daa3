"""Images/s of camox's own training in two processes on the CPU, beside a bare DistributedDataParallel loop.

    python tests/benchmarks/ddp.py [--backbone edgenext_base] [--img-size 224] [--batch-size 4] [--pairs 10] [--steps 4]

Both train the same network with the same losses, AdamW and clipping on the same pictures, which lie in memory, with the
whole backbone unfrozen, one thread a process. The bare loop averages over ranks what DistributedDataParallel with
find_unused_parameters=True averages, and nothing else; camox also sums its losses, watches for steps that overflow,
seeds each step, and where --ema asks for it keeps a moving average. Pairs are interleaved within the same processes;
the median of their ratios is what counts. Aim: at least 0.97. The speed-up compares with one process, alone on the
machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from camoxpert_cli.config.load import Resolved, resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.engine.build import RunData, build_network
from camoxpert_cli.engine.deadline import Deadline
from camoxpert_cli.engine.device import place
from camoxpert_cli.engine.run import Run, assemble, set_trained
from camoxpert_cli.engine.stages import WHOLE_BACKBONE, Stage
from camoxpert_cli.engine.step import TrainingStep, combine
from camoxpert_cli.engine.train import CLIP_NORM, training_steps
from camoxpert_cli.engine.world import World, joined
from camoxpert_cli.launch import MEETING_POINT, is_worker, worker_environment
from camoxpert_cli.runs import RunFolder

WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="edgenext_base")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--num-experts", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--ema", action="store_true")
    asked = parser.parse_args()
    if is_worker():
        with joined(timeout=600) as world:
            pairs = measure(world, settings(asked, world.size), asked.pairs, asked.steps)
        if world.is_main:
            (Path(os.environ[MEETING_POINT]) / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
        return

    alone, together = in_processes(1), in_processes(2)
    ratios = sorted(ours / bare for ours, bare in together)
    print(f"{asked.backbone}, {asked.img_size} px, batch {asked.batch_size} a process, {asked.num_experts} experts")
    print(f"{asked.pairs} interleaved pairs of {asked.steps} steps, images/s, median (from lowest to highest)")
    for name, pairs in (("1 process", alone), ("2 processes", together)):
        ours, bare = (sorted(column) for column in zip(*pairs, strict=True))
        print(f"{name:12}  camox {spread(ours)}   bare loop {spread(bare)}")
    for at, name in enumerate(("camox", "bare loop")):
        speed_up = statistics.median(pair[at] for pair in together) / statistics.median(pair[at] for pair in alone)
        print(f"speed-up of 2 processes, {name}: {speed_up:.2f}")
    print(f"ratio camox / bare loop: {statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f})")


def in_processes(count: int) -> list[tuple[float, float]]:
    """What `measure` returns, in so many processes with the arguments of this one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *sys.argv]
        workers = [
            subprocess.Popen(command, env=worker_environment(Path(folder), rank, count, threads=1))
            for rank in range(count)
        ]
        codes = [worker.wait() for worker in workers]
        if any(codes):
            raise SystemExit(f"the processes ended with {codes}")
        return [(ours, bare) for ours, bare in json.loads((Path(folder) / "pairs.json").read_text(encoding="utf-8"))]


def settings(asked: argparse.Namespace, processes: int) -> Resolved:
    flags = {
        "model.backbone": asked.backbone,
        "model.num_experts": asked.num_experts,
        "model.pretrained": False,
        "data.img_size": asked.img_size,
        "train.stage2_batch_size": asked.batch_size,
        "train.use_ema": asked.ema,
        "train.skip_stage1": True,
        "train.scheduler": "none",
        "run.device": "cpu",
        "run.gpus": processes,
    }
    return resolve(None, {key: value if isinstance(value, bool) else str(value) for key, value in flags.items()})


def measure(world: World, resolved: Resolved, pairs: int, steps: int) -> list[tuple[float, float]]:
    """Images/s of camox and of the bare loop, pair by pair, over all ranks."""
    torch.manual_seed(world.rank)
    with tempfile.TemporaryDirectory() as folder:
        run, stage = camox_run(resolved.config, world, Path(folder))
        side = run.config.data.img_size
        images = torch.randint(256, (stage.batch_size, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        masks = (torch.rand(stage.batch_size, 1, side, side) > 0.5).to(torch.uint8)
        size = stage.batch_size * world.size
        ours = training_steps(run, stage, stage.first, itertools.repeat((size, (images, masks))))
        bare = bare_steps(resolved.config, world, images, masks)
        for loop in (ours, bare):
            rate(loop, WARM_UP, size, world)
        found = []
        for number in range(pairs):
            # Which one goes first alternates: a machine that warms up or slows down favours neither.
            order = (ours, bare) if number % 2 == 0 else (bare, ours)
            first, second = (rate(loop, steps, size, world) for loop in order)
            found.append((first, second) if number % 2 == 0 else (second, first))
    return found


def camox_run(config: Config, world: World, folder: Path) -> tuple[Run, Stage]:
    network = build_network(config.model, config.train.seed, weights_follow=True)
    pictures = [Pair("", Path(), Path())] * 10**6
    data = RunData((), pictures, [], {}, generated=True)
    run = assemble(
        config, RunFolder(folder, writes=False), data, network, place(config.run, world.size), world, Deadline()
    )
    set_trained(run, WHOLE_BACKBONE)
    run.network.train()
    return run, run.phases[0].stage


def bare_steps(config: Config, world: World, images: torch.Tensor, masks: torch.Tensor) -> Iterator[object]:
    """What anyone would write around the same network and losses."""
    network = build_network(config.model, config.train.seed, weights_follow=True).train()
    network.set_trainable(WHOLE_BACKBONE, deep_heads=config.model.deep_supervision)
    step: nn.Module = TrainingStep(network, config.model.deep_supervision, None)
    if world.size > 1:
        step = DistributedDataParallel(step, find_unused_parameters=True)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=config.train.weight_decay)
    while True:
        # One rank's loss of its own images, as DistributedDataParallel averages them.
        loss = combine(step(images, masks), network.top_k, len(images), World()).total
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()


def rate(loop: Iterator[object], steps: int, images: int, world: World) -> float:
    world.gather(None)
    started = time.perf_counter()
    for _ in range(steps):
        next(loop)
    world.gather(None)
    return steps * images / (time.perf_counter() - started)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"


if __name__ == "__main__":
    main()
